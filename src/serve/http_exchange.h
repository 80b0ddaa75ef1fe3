#pragma once
/// One answer on its way from the thread that gives it to the I/O thread that sends it.

#include <chrono>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "serve/http_handler.h"

namespace tailor {

/// Brings the I/O thread to look at the exchange. Shared by all exchanges of a connection, outlives it.
class HttpWaker {
 public:
  virtual ~HttpWaker() = default;
  virtual void wake() = 0;
};

/// Threads: all. The handler's side writes, the connection's side takes; the mutex is held for moments.
class HttpExchange {
 public:
  HttpExchange(std::shared_ptr<HttpWaker> waker, bool chunked, std::size_t buffer_limit)
      : waker_(std::move(waker)), chunked_(chunked), buffer_limit_(buffer_limit) {}

  // The handler's side; see HttpResponder.
  void send(HttpResponse response);
  void send(std::shared_ptr<const PreparedResponse> response);
  void begin_stream(int status, HttpHeaders headers);
  bool write(std::string_view piece);
  void finish();
  void set_keep_alive_comment(std::chrono::milliseconds interval);
  void on_silence(std::chrono::milliseconds interval, std::function<void()> callback);
  void on_disconnect(std::function<void()> callback);
  bool gone() const;
  void abandon();  // the responder was dropped

  // The connection's side.
  struct StreamBegin {
    int status;
    HttpHeaders headers;
  };
  /// What is new since the last take().
  struct Taken {
    std::optional<HttpResponse> response;
    std::shared_ptr<const PreparedResponse> prepared;
    std::optional<StreamBegin> begin;
    std::string bytes;  // of the stream, framed
    bool finished = false;
    bool unanswered = false;  // dropped before an answer began
    bool broken = false;      // dropped within a stream
    bool overrun = false;     // the reader is too slow
    std::chrono::milliseconds comment_interval{0};
  };
  Taken take();
  /// Bytes that the connection holds and the client has not taken; they count against the limit.
  void set_unsent(std::size_t bytes);
  void tick(std::chrono::steady_clock::time_point now);
  /// No answer will be taken any more. Calls the callback where the answer was not complete; true if it was not.
  bool close();

 private:
  enum class Phase : std::uint8_t { kOpen, kStream, kDone, kGone };
  void wake(std::unique_lock<std::mutex> lock);

  mutable std::mutex mutex_;
  std::shared_ptr<HttpWaker> waker_;
  const bool chunked_;
  const std::size_t buffer_limit_;
  Phase phase_ = Phase::kOpen;
  bool wake_pending_ = true;  // a connection takes once by itself, after handle() has returned
  Taken next_;
  std::size_t unsent_ = 0;
  std::function<void()> disconnected_, silent_;
  std::chrono::steady_clock::time_point silent_at_;
};

std::string frame_chunk(std::string_view piece);  ///< of a non-empty piece

std::shared_ptr<HttpResponder> make_responder(std::shared_ptr<HttpExchange> exchange);

}  // namespace tailor
