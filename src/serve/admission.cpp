#include "serve/admission.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace tailor {
namespace {

ApiError overloaded(std::string message, double seconds) {
  return {503, "server_overloaded", "server_overloaded", std::move(message), "", retry_after_s(seconds)};
}

}  // namespace

std::int64_t estimated_tokens(std::size_t body_bytes) {
  constexpr std::size_t kBytesPerToken = 3;  // of most languages a little more: an estimate above what it will be
  return static_cast<std::int64_t>(body_bytes / kBytesPerToken);
}

int retry_after_s(double seconds) {
  constexpr double kMost = 3600;
  return static_cast<int>(std::ceil(std::clamp(seconds, 1.0, kMost)));
}

std::optional<ApiError> refuse_to_wait(const ExpectedWait& wait, const AdmissionRequest& request) {
  if (wait.seconds <= 0) return std::nullopt;
  if (request.named && wait.own_seconds > request.most_waiting_s) {
    return ApiError{429,
                    "requests",
                    "rate_limit_exceeded",
                    fmt::format("what waits under this key takes about {} s; a request may wait for {} s",
                                retry_after_s(wait.own_seconds), std::floor(request.most_waiting_s)),
                    "",
                    retry_after_s(wait.own_seconds)};
  }
  if (wait.seconds > request.most_waiting_s) {
    return overloaded(fmt::format("the server is overloaded: this request would wait for about {} s, more than {} s",
                                  retry_after_s(wait.seconds), std::floor(request.most_waiting_s)),
                      wait.seconds);
  }
  // At the pace of all together: alone it cannot be faster.
  const double needed =
      wait.tokens_per_second > 0 ? wait.seconds + request.tokens / wait.tokens_per_second : wait.seconds;
  if (needed > request.seconds_left) {
    return overloaded(
        fmt::format("the server is overloaded: this request would take about {} s, and has {} s until its time-out",
                    retry_after_s(needed), std::floor(std::max(0.0, request.seconds_left))),
        wait.seconds);
  }
  return std::nullopt;
}

ApiError engine_error(const Error& error, const ExpectedWait& wait) {
  ApiError out = api_error(error);
  if (error.code == ErrorCode::kUnavailable) out.retry_after_s = retry_after_s(wait.seconds);
  return out;
}

}  // namespace tailor
