#pragma once
/// Request targets and Host fields, checked strictly.

#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "core/result.h"

namespace tailor {

struct HttpTarget {
  std::string path;       // decoded, "/..." or "*"
  std::string query;      // as it came
  std::string authority;  // of an absolute target, lower case; else empty
};

/// Origin form ("/path?query"), absolute form ("http://host/path?query"), and "*" where `method` is OPTIONS. Errors:
/// other forms, bytes outside printable ASCII, "#", bad percent-encoding, and paths that decode to control characters,
/// a backslash, an encoded slash (but within a name that follows one of `names_under`: "/v1/models/"), or a "." or ".."
/// segment.
Result<HttpTarget> parse_http_target(std::string_view method, std::string_view target,
                                     std::span<const std::string_view> names_under = {});

struct HttpAuthority {
  std::string host;  // lower case; an IPv6 address without brackets
  std::string port;  // digits; empty where absent
};

/// "host", "host:port", "[v6]:port". Errors: empty, user names, other characters.
Result<HttpAuthority> parse_http_authority(std::string_view text);

}  // namespace tailor
