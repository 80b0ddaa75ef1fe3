#include "serve/api_result.h"

#include <algorithm>

#include "core/json.h"

namespace tailor {
namespace {

ApiError untold(ApiError told, const Error& error) {
  told.cause = to_string(error);
  return told;
}

}  // namespace

std::string without_directories(std::string_view text) {
  constexpr std::string_view kEnds = " \t\r\n\"'`()[]{}<>,;:|=";
  std::string out;
  while (!text.empty()) {
    const std::string_view word = text.substr(0, text.find_first_of(kEnds));
    const std::size_t last = word.find_last_not_of('/');
    const std::size_t slash = last == std::string_view::npos ? 0 : word.rfind('/', last);
    const bool path = word.starts_with('/') && slash != std::string_view::npos && slash > 0;
    out += path ? word.substr(slash + 1) : word;
    text.remove_prefix(word.size());
    out += text.substr(0, 1);
    text.remove_prefix(std::min<std::size_t>(1, text.size()));
  }
  return out;
}

ApiError api_error(const Error& error) {
  const std::string text = without_directories(to_string(error));
  switch (error.code) {
    case ErrorCode::kInvalidArgument:
    case ErrorCode::kCorruptData:
      return {400, "invalid_request_error", "", text, ""};
    case ErrorCode::kNotFound:
      return {404, "not_found_error", "", text, ""};
    case ErrorCode::kUnavailable:
      return {503, "server_overloaded", "server_overloaded", text, "", 1};
    case ErrorCode::kCancelled:
      return {408, "timeout_error", "timeout", text, ""};
    case ErrorCode::kOutOfMemory:
      return untold(
          {503, "server_overloaded", "out_of_memory", "the server has no memory left for this request", "", 5}, error);
    case ErrorCode::kIo:
    case ErrorCode::kInternal:
      break;
  }
  return untold(
      {500, "server_error", "internal_error", "the server failed on this request; its log has the reason", ""}, error);
}

std::string error_json(const ApiError& error) {
  const auto or_null = [](const std::string& text) { return text.empty() ? Json(nullptr) : Json(text); };
  return dump_json({{"error",
                     {{"message", error.message},
                      {"type", error.type},
                      {"param", or_null(error.param)},
                      {"code", or_null(error.code)}}}});
}

HttpResponse error_response(const ApiError& error) {
  HttpResponse response{error.status, {{"Content-Type", "application/json"}}, error_json(error)};
  if (error.retry_after_s > 0) response.headers.add("Retry-After", std::to_string(error.retry_after_s));
  for (const HttpHeader& field : error.headers) response.headers.add(field.name, field.value);
  if (error.status == 401) response.headers.add("WWW-Authenticate", "Bearer");
  return response;
}

}  // namespace tailor
