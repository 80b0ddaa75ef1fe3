#pragma once
/// One HTTP request, as a client: to a collector of traces, or to a server of ours.

#include <chrono>
#include <cstddef>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "core/cancel.h"
#include "core/result.h"

namespace tailor {

struct WebRequest {
  std::string url;                                          // http or https
  std::vector<std::pair<std::string, std::string>> fields;  // of the head
  std::optional<std::string> body;                          // POST; absent: GET
  std::chrono::milliseconds timeout{10'000};                // for everything
  std::size_t max_bytes = std::size_t{16} << 20;            // of the answer
};

struct WebReply {
  int status = 0;
  std::string body;
  std::optional<int> retry_after_s;
};

/// Follows no redirect, so that credentials go nowhere else. An answer of any status is a success; errors: kUnavailable
/// (no connection, no answer in time, TLS), kCancelled, kInvalidArgument (no such URL, a field with a line break),
/// kCorruptData (too long). Threads: any.
Result<WebReply> ask_web(const WebRequest& request, const CancelToken* cancel = nullptr);

}  // namespace tailor
