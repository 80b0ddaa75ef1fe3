#pragma once
/// An HTTP/1.1 server: keep-alive, pipelining, chunked bodies both ways, event streams, TLS, Unix sockets. It knows
/// nothing of what it serves; see http_handler.h.

#include <chrono>
#include <memory>
#include <vector>

#include "serve/http_handler.h"
#include "serve/http_metrics.h"
#include "serve/http_options.h"

namespace tailor {

/// Ends in steps: drain(), until wait_answered(); stop_accepting(), until wait_drained(); stop(). Each may be left out.
/// Threads: these, start() and reload_tls() from one thread at a time, not from the handler's calls. Everything else
/// any thread.
class HttpServer {
 public:
  /// `handler` stays alive until stop() has returned.
  HttpServer(HttpHandler& handler, HttpServerOptions options);
  HttpServer(const HttpServer&) = delete;
  HttpServer& operator=(const HttpServer&) = delete;
  ~HttpServer();  ///< stop()

  /// Listens at all endpoints or at none. Once. Errors: a place in use, a path that is no socket, TLS files.
  Status start();
  std::vector<HttpEndpoint> endpoints() const;  ///< with the ports that the system chose; after start()

  /// Connections come and are heard as before, so that the handler can refuse and health can be asked for; every answer
  /// says "Connection: close". A stream that began before leaves its connection for one more request.
  void drain();
  bool wait_answered(std::chrono::milliseconds timeout);  ///< after drain(): whether all that began before has ended
  /// No new connections; idle ones close; requests under way are answered with "Connection: close".
  void stop_accepting();
  bool wait_drained(std::chrono::milliseconds timeout);  ///< whether all connections have ended
  /// Ends all connections now; answers that are still due are disconnected. Returns when no call of the handler runs.
  void stop();

  /// Reads the certificates and keys again, for connections from now on. Bad files: an error, and the old ones stay.
  Status reload_tls();

  const HttpMetrics& metrics() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace tailor
