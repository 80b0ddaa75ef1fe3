#include <fmt/format.h>

#include <charconv>

#include "serve/http_options.h"
#include "serve/http_target.h"

namespace tailor {
namespace {

Error bad(std::string_view text, std::string_view why) {
  return {ErrorCode::kInvalidArgument, fmt::format("\"{}\" is no place to listen at: {}", text, why),
          "write HOST:PORT, [IPV6]:PORT or unix:/PATH, for example 127.0.0.1:8080"};
}

}  // namespace

Result<HttpEndpoint> parse_endpoint(std::string_view text) {
  HttpEndpoint endpoint;
  if (text.substr(0, 5) == "unix:") {
    endpoint.unix_path = text.substr(5);
    if (endpoint.unix_path.empty()) return bad(text, "the path is missing");
    return endpoint;
  }
  const auto authority = parse_http_authority(text);
  if (!authority) return bad(text, authority.error().message);
  if (authority->port.empty()) return bad(text, "the port is missing");
  const std::string& port = authority->port;
  const auto [end, error] = std::from_chars(port.data(), port.data() + port.size(), endpoint.port);
  if (error != std::errc() || end != port.data() + port.size()) return bad(text, "ports end at 65535");
  endpoint.host = authority->host;
  return endpoint;
}

std::string to_string(const HttpEndpoint& endpoint) {
  if (!endpoint.unix_path.empty()) return "unix:" + endpoint.unix_path.string();
  const bool brackets = endpoint.host.find(':') != std::string::npos;
  return fmt::format("{}{}{}:{}", brackets ? "[" : "", endpoint.host, brackets ? "]" : "", endpoint.port);
}

}  // namespace tailor
