#include "serve/http_target.h"

#include <fmt/format.h>

#include <algorithm>

#include "serve/http_message.h"

namespace tailor {
namespace {

Error bad(std::string message) {
  return {ErrorCode::kInvalidArgument, std::move(message), ""};
}

std::string lower_case(std::string_view text) {
  std::string out(text);
  for (char& c : out) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c + 32);
  }
  return out;
}

bool is_alphanumeric(char c) {
  return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

/// Where slashes may be encoded: the end, or behind one of `names_under`.
std::size_t names_begin(std::string_view raw, std::span<const std::string_view> names_under) {
  for (const std::string_view path : names_under) {
    if (raw.starts_with(path)) return path.size();
  }
  return raw.size();
}

Status check_path(std::string_view raw, std::string_view decoded, std::span<const std::string_view> names_under) {
  const std::size_t names = names_begin(raw, names_under);
  for (std::size_t i = 0; i + 2 < raw.size() && i < names; ++i) {
    if (raw[i] == '%' && raw[i + 1] == '2' && (raw[i + 2] == 'f' || raw[i + 2] == 'F')) {
      return bad("the path has an encoded slash");
    }
  }
  for (const char c : decoded) {
    if (static_cast<unsigned char>(c) < 32 || c == 127) return bad("the path has an encoded control character");
    if (c == '\\') return bad("the path has a backslash");
  }
  while (!decoded.empty()) {
    decoded.remove_prefix(1);
    const std::string_view segment = decoded.substr(0, decoded.find('/'));
    if (segment == "." || segment == "..") return bad(fmt::format("the path has a \"{}\" segment", segment));
    decoded.remove_prefix(segment.size());
  }
  return {};
}

}  // namespace

Result<HttpTarget> parse_http_target(std::string_view method, std::string_view target,
                                     std::span<const std::string_view> names_under) {
  if (target.empty()) return bad("the target is empty");
  const auto unprintable = [](char c) { return c <= 32 || c >= 127; };
  if (std::any_of(target.begin(), target.end(), unprintable)) return bad("the target has bytes that must be encoded");
  if (target.find('#') != std::string_view::npos) return bad("the target has a fragment (\"#\")");
  HttpTarget out;
  if (target == "*") {
    if (method != "OPTIONS") return bad("the target \"*\" is for OPTIONS only");
    out.path = "*";
    return out;
  }
  if (target[0] != '/') {
    const std::size_t colon = target.find("://");
    const std::string scheme = lower_case(target.substr(0, colon == std::string_view::npos ? 0 : colon));
    if (scheme != "http" && scheme != "https")
      return bad("the target must begin with \"/\", \"http://\" or \"https://\"");
    target.remove_prefix(colon + 3);
    const std::string_view authority = target.substr(0, target.find_first_of("/?"));
    if (authority.empty()) return bad("the target names no host");
    out.authority = lower_case(authority);
    target.remove_prefix(authority.size());
  }
  const std::size_t question = target.find('?');
  const std::string_view raw = target.substr(0, question);
  if (question != std::string_view::npos) out.query = target.substr(question + 1);
  const auto decoded = percent_decode(raw);
  if (!decoded) return bad("the path has a \"%\" that is not followed by two hexadecimal digits");
  TAILOR_CHECK(check_path(raw, *decoded, names_under));
  out.path = decoded->empty() ? "/" : *decoded;
  return out;
}

Result<HttpAuthority> parse_http_authority(std::string_view text) {
  HttpAuthority out;
  std::string_view rest = text;
  if (!rest.empty() && rest[0] == '[') {
    const std::size_t end = rest.find(']');
    if (end == std::string_view::npos || end == 1) return bad("a \"[\" is not closed");
    const std::string_view inside = rest.substr(1, end - 1);
    const auto wrong = [](char c) { return !is_alphanumeric(c) && c != ':' && c != '.' && c != '%'; };
    if (std::any_of(inside.begin(), inside.end(), wrong)) return bad("no IPv6 address within the brackets");
    out.host = lower_case(inside);
    rest.remove_prefix(end + 1);
  } else {
    const std::string_view name = rest.substr(0, rest.find(':'));
    const auto wrong = [](char c) { return !is_alphanumeric(c) && c != '-' && c != '.' && c != '_'; };
    if (name.empty() || std::any_of(name.begin(), name.end(), wrong)) return bad("no host name");
    out.host = lower_case(name);
    rest.remove_prefix(name.size());
  }
  if (rest.empty()) return out;
  const std::string_view port = rest.substr(1);
  const auto no_digit = [](char c) { return c < '0' || c > '9'; };
  if (rest[0] != ':' || port.size() > 5 || std::any_of(port.begin(), port.end(), no_digit))
    return bad("no port number");
  out.port = port;
  return out;
}

}  // namespace tailor
