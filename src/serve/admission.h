#pragma once
/// Who is turned away before work is done for it, since it would wait too long.

#include <chrono>
#include <cstdint>
#include <optional>

#include "infer/engine.h"
#include "serve/api_result.h"

namespace tailor {

/// What a request of which nothing was tokenised asks for.
struct AdmissionRequest {
  bool named = false;          // asks with a key; without keys all are the same client
  double tokens = 0;           // of its prompts and answers, estimated
  double seconds_left = 0;     // until its time-out
  double most_waiting_s = 30;  // before it begins
};

/// Tokens of a body of JSON whose text nobody has read: a third of its bytes.
std::int64_t estimated_tokens(std::size_t body_bytes);

/// 503: the server has more to do than it can do in time; 429: what waits under the request's own key alone takes too
/// long. Both with Retry-After: what waits now is done by then. None: let it in; always where nothing waits.
///
/// A key pays for what it has waiting itself, and for others only as far as they get their turns before it: a key
/// within its share comes in, however long the queue of another is.
std::optional<ApiError> refuse_to_wait(const ExpectedWait& wait, const AdmissionRequest& request);

/// Retry-After of a wait: whole seconds, at least 1, at most an hour.
int retry_after_s(double seconds);

/// What the engine says of a full queue, with Retry-After by what waits.
ApiError engine_error(const Error& error, const ExpectedWait& wait);

}  // namespace tailor
