#pragma once
/// The border between the HTTP server and what it serves: a handler decides from a request's head whether its body may
/// come, takes the whole request, and answers from any thread.

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "core/result.h"
#include "serve/http_message.h"

namespace tailor {

/// Takes a body piece by piece as it comes, so that it is never in memory as a whole. Destroyed unfinished where the
/// client goes away or the body breaks a rule: the consumer removes what it kept.
class HttpBodySink {
 public:
  virtual ~HttpBodySink() = default;
  /// On the I/O thread: keep it short (a write to the page cache is). An error ends the request with `error_status`.
  virtual Status write(std::string_view piece) = 0;
  virtual int error_status() const { return 500; }
};

/// What admit() says about a request of which only the head is known.
struct HttpAdmission {
  std::optional<HttpResponse> refusal;        // answered at once; the body is not read (a small one is read past)
  std::uint64_t max_body_bytes = 0;           // more: 413, before reading where Content-Length says so
  std::unique_ptr<HttpBodySink> sink;         // null: the body comes in HttpRequest::body
  std::chrono::milliseconds body_timeout{0};  // for the whole body; 0: the server's
  std::shared_ptr<void> context;              // the handler's own, handed to handle(): what it already found out
};

struct HttpRequest {
  HttpHead head;
  std::string body;                    // empty with a sink
  std::unique_ptr<HttpBodySink> sink;  // the one of the admission, after the last piece
  std::shared_ptr<void> context;
  std::shared_ptr<void> held;  // while it lives, the body counts for HttpLimits::body_memory_bytes
};

/// The way to answer one request. Any thread, also after the client has gone and after the server has stopped: calls
/// then do nothing. Dropped without an answer: 500; dropped within a stream: the connection breaks, so that the client
/// does not take half for the whole. Do not keep the responder itself in its on_disconnect callback: it would never be
/// dropped while the client stays.
class HttpResponder {
 public:
  virtual ~HttpResponder() = default;

  /// The whole answer. The first answer counts; later ones are ignored.
  virtual void send(HttpResponse response) = 0;
  virtual void send(std::shared_ptr<const PreparedResponse> response) = 0;

  /// An answer that comes in pieces (chunked; to an HTTP/1.0 client until the connection closes).
  virtual void begin_stream(int status, HttpHeaders headers) = 0;
  /// Never blocks. False: stop, nobody reads this any more: the client has gone, or it read so slowly that more than
  /// HttpLimits::stream_buffer_bytes waited for it, and was disconnected.
  virtual bool write(std::string_view piece) = 0;
  virtual void finish() = 0;
  /// Sends the comment ": keep-alive" whenever an event stream was silent for so long; 0: never. Each write() then has
  /// to be whole events.
  virtual void set_keep_alive_comment(std::chrono::milliseconds interval) = 0;

  /// Called once, on the I/O thread, where no answer has begun for so long; it may begin one. Keep it short; it may not
  /// throw. Where nobody waits at a connection it is never called.
  virtual void on_silence(std::chrono::milliseconds /*interval*/, std::function<void()> /*callback*/) {}
  /// Called once, on the I/O thread, when the client goes before the answer is complete, or at once where it has gone
  /// already. A client that closes its sending half counts as gone. Keep it short; it may not throw.
  virtual void on_disconnect(std::function<void()> callback) = 0;
  virtual bool gone() const = 0;
};

inline constexpr std::string_view kTooManyConnections = "too many connections are open; try again later";

/// Threads: called on the server's I/O threads, with more than one of them concurrently. Nothing here may block.
/// Exceptions become status 500.
class HttpHandler {
 public:
  virtual ~HttpHandler() = default;
  /// After the head, before any byte of the body is read and before "100 Continue" is answered.
  virtual HttpAdmission admit(const HttpHead& head) = 0;
  /// After the body. Answers now or later.
  virtual void handle(HttpRequest&& request, std::shared_ptr<HttpResponder> responder) = 0;
  /// The answer to what never became a request: 400, 408, 413, 414, 417, 431, 500, 501, 503, 505. `context`: of the
  /// admission, where only the body went wrong; else null.
  virtual HttpResponse error_response(int status, std::string_view message, const std::shared_ptr<void>& /*context*/) {
    return {status, {{"Content-Type", "text/plain; charset=utf-8"}}, std::string(message) + "\n"};
  }
  /// The answer, 503, to a connection beyond the limits: of all, or of its address (empty: over a Unix socket).
  virtual HttpResponse refuse_connection(const std::string& /*remote_address*/) {
    return error_response(503, kTooManyConnections, nullptr);
  }
};

}  // namespace tailor
