#pragma once
/// One connection: requests in, answers out, one after another.

#include <chrono>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/cancel.h"
#include "serve/http_exchange.h"
#include "serve/http_loop.h"
#include "serve/http_output.h"
#include "serve/http_parser.h"
#include "serve/http_shared.h"
#include "serve/http_transport.h"

namespace tailor {

/// Bytes read and not yet understood. Grows to what is asked for, a quarter at first.
class HttpInput {
 public:
  std::string_view bytes() const { return {data_.data() + begin_, end_ - begin_}; }
  bool empty() const { return begin_ == end_; }
  void consume(std::size_t n) { begin_ += n; }
  void clear() { begin_ = end_; }
  /// Room for a read, so that at most `capacity` bytes are kept; empty where they are. Not while a read is under way.
  std::span<char> room(std::size_t capacity);
  void commit(std::size_t n) { end_ += n; }

 private:
  std::vector<char> data_;
  std::size_t begin_ = 0, end_ = 0;
};

/// Threads: its loop's only; the exchanges carry answers over. A read is always under way, so that a client that goes
/// is noticed while its answer is computed; what it sends ahead is kept up to header_bytes.
class HttpSession final : public TransportOwner, public std::enable_shared_from_this<HttpSession> {
 public:
  /// HttpShared::enter() was called for `peer`; the destructor calls leave().
  HttpSession(std::shared_ptr<HttpShared> shared, std::shared_ptr<HttpLoop> loop,
              std::unique_ptr<HttpTransport> transport, HttpPeer peer);
  ~HttpSession() override;

  void start();
  void finish();  ///< no further request after the present one
  void close();   ///< now
  void tick(SteadyTime now);
  void on_wake();

  void on_handshake(IoOutcome outcome) override;
  void on_read(IoOutcome outcome, std::size_t bytes) override;
  void on_write(IoOutcome outcome, std::size_t bytes) override;

 private:
  // kDiscard: the body of a refused request. kClosing: the last answer is being sent. kLinger: it is sent; what comes
  // is thrown away until the client closes.
  enum class State : std::uint8_t { kHandshake, kHead, kBody, kDiscard, kResponding, kClosing, kLinger, kClosed };

  /// Out of memory, mostly: this connection ends, the others go on.
  template <typename Work>
  void guarded(Work work) {
    try {
      work();
    } catch (...) {
      close();
    }
  }
  void run();
  bool step();
  bool step_request();
  bool step_response();
  void flush();
  void want_read();
  void linger();
  void peer_ended();

  void on_head();
  void on_body(std::string_view piece);
  void on_request();
  void refuse(HttpResponse response);
  bool may_stay() const;  // after the present request
  void leave_request();
  void next_request();
  void end_request(bool keep);

  void respond(HttpResponse response, bool keep);
  void send_head(std::string_view head, bool keep);
  void begin_stream(HttpExchange::StreamBegin begin);
  void fail(int status, std::string_view message);
  HttpResponse error_response(int status, std::string_view message);

  void begin_body_deadlines(std::chrono::milliseconds timeout);
  bool body_is_late(SteadyTime now);
  void tick_read(SteadyTime now);
  void tick_comment(SteadyTime now);
  void release_body_memory();

  const std::shared_ptr<HttpShared> shared_;
  const std::shared_ptr<HttpLoop> loop_;
  const std::unique_ptr<HttpTransport> transport_;
  const HttpPeer peer_;
  std::shared_ptr<HttpWaker> waker_;

  State state_ = State::kHandshake;
  bool finishing_ = false, peer_ended_ = false, reading_ = false, writing_ = false;
  HttpInput in_;
  HttpOutput out_;

  // Of the present request.
  std::optional<HttpParser> parser_;
  bool head_begun_ = false;  // its first byte came, or the connection is new
  bool counted_ = false;     // a drain waits for it
  HttpAdmission admission_;
  std::string body_;
  std::uint64_t body_bytes_ = 0;
  std::size_t body_memory_ = 0;  // counted in HttpShared
  bool is_head_method_ = false;
  std::shared_ptr<HttpExchange> exchange_;
  bool streaming_ = false, stream_has_body_ = false;
  bool stream_stays_ = false;  // its head did not say that the connection ends
  std::chrono::milliseconds comment_interval_{0};

  SteadyTime read_deadline_, write_deadline_, window_end_, comment_due_;
  std::uint64_t window_bytes_ = 0;
};

}  // namespace tailor
