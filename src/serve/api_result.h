#pragma once
/// Failures as the OpenAI API tells them, and a result that carries one.

#include <optional>
#include <string>
#include <utility>
#include <variant>

#include "core/result.h"
#include "serve/http_message.h"

namespace tailor {

/// {"error": {"message", "type", "param", "code"}} with a status.
struct ApiError {
  int status = 400;
  std::string type = "invalid_request_error";
  std::string code;  // "model_not_found", …; empty: null
  std::string message;
  std::string param;         // the field that is wrong, "messages[2].content"; empty: null
  int retry_after_s = 0;     // > 0: Retry-After
  HttpHeaders headers = {};  // further fields of the answer
  std::string cause = {};    // for the log alone: what `message` leaves out; empty: nothing

  static ApiError invalid(std::string param, std::string message, std::string code = {}) {
    return {400, "invalid_request_error", std::move(code), std::move(message), std::move(param)};
  }
};

/// kInvalidArgument, kNotFound and kCorruptData are the caller's (400, 404, 400), kUnavailable is a full queue (503),
/// kCancelled a time-out (408); the rest is ours (503 for want of memory, else 500), told without its text, which is
/// `cause`. Directories are left out of all that is told.
ApiError api_error(const Error& error);

/// Absolute paths as their last name: "/srv/models/a.gguf: not a GGUF file" becomes "a.gguf: not a GGUF file". A path
/// ends at a blank, a quote, a bracket, a comma, a colon or a semicolon; one slash alone is no path ("/readyz").
std::string without_directories(std::string_view text);

HttpResponse error_response(const ApiError& error);
/// The object itself, as it stands in a stream.
std::string error_json(const ApiError& error);

/// A value or an ApiError; TAILOR_TRY works with it, and an Error of the library becomes one.
template <typename T>
class [[nodiscard]] ApiResult {
 public:
  ApiResult(T value) : state_(std::in_place_index<0>, std::move(value)) {}  // NOLINT(google-explicit-constructor)
  ApiResult(ApiError error)
      : state_(std::in_place_index<1>, std::move(error)) {}  // NOLINT(google-explicit-constructor)
  ApiResult(const Error& error)
      : state_(std::in_place_index<1>, api_error(error)) {}  // NOLINT(google-explicit-constructor)
  bool has_value() const { return state_.index() == 0; }
  T& operator*() { return std::get<0>(state_); }
  T* operator->() { return &std::get<0>(state_); }
  const ApiError& error() const { return std::get<1>(state_); }

 private:
  std::variant<T, ApiError> state_;
};

}  // namespace tailor
