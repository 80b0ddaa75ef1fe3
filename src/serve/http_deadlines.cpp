// The deadlines of a connection.

#include "serve/http_session.h"

namespace tailor {

using Clock = std::chrono::steady_clock;

void HttpSession::begin_body_deadlines(std::chrono::milliseconds timeout) {
  const SteadyTime now = Clock::now();
  read_deadline_ = now + timeout;
  window_end_ = now + shared_->timeouts.body_window;
  window_bytes_ = 0;
}

bool HttpSession::body_is_late(SteadyTime now) {
  if (now >= read_deadline_) return true;
  if (now < window_end_) return false;
  const auto window = std::chrono::duration<double>(shared_->timeouts.body_window).count();
  if (static_cast<double>(window_bytes_) < window * static_cast<double>(shared_->timeouts.body_bytes_per_second)) {
    return true;
  }
  window_end_ = now + shared_->timeouts.body_window;
  window_bytes_ = 0;
  return false;
}

void HttpSession::tick(SteadyTime now) {
  guarded([&] {
    if (writing_ && now >= write_deadline_) {
      count(shared_->metrics->write_timeouts);
      return close();
    }
    tick_read(now);
    if (const auto exchange = exchange_; exchange && state_ == State::kResponding) exchange->tick(now);
    tick_comment(now);
  });
}

void HttpSession::tick_read(SteadyTime now) {
  HttpMetrics& metrics = *shared_->metrics;
  switch (state_) {
    case State::kHandshake:
      if (now < read_deadline_) return;
      count(metrics.handshake_timeouts);
      return close();
    case State::kHead:
      if (now < read_deadline_) return;
      if (!out_.empty()) return;  // a reader of earlier answers that is slow; it has the deadline of writing
      if (in_.empty()) {
        count(metrics.idle_timeouts);
        return close();
      }
      count(metrics.header_timeouts);
      fail(408, "the head of the request did not come in time");
      return run();
    case State::kBody:
      if (!body_is_late(now)) return;
      count(metrics.body_timeouts);
      fail(408, "the body of the request did not come in time");
      return run();
    case State::kDiscard:
      if (!body_is_late(now)) return;
      count(metrics.body_timeouts);
      return close();
    case State::kLinger:
      if (now >= read_deadline_) close();
      return;
    case State::kResponding:
    case State::kClosing:
    case State::kClosed:
      return;
  }
}

void HttpSession::tick_comment(SteadyTime now) {
  if (state_ != State::kResponding || !streaming_ || !stream_has_body_ || comment_interval_.count() <= 0) return;
  if (now < comment_due_ || !out_.empty()) return;
  static constexpr std::string_view kComment = ": keep-alive\n\n";
  out_.append(parser_->http_1_0() ? std::string(kComment) : frame_chunk(kComment));
  comment_due_ = now + comment_interval_;
  flush();
}

}  // namespace tailor
