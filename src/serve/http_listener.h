#pragma once
/// A socket that takes connections and hands each to a loop.

#include <boost/asio/generic/stream_protocol.hpp>
#include <boost/asio/ssl/context.hpp>
#include <functional>
#include <memory>
#include <mutex>

#include "serve/http_loop.h"
#include "serve/http_options.h"
#include "serve/http_shared.h"

namespace tailor {

class HttpListener : public std::enable_shared_from_this<HttpListener> {
 public:
  /// Which loop takes the next connection.
  using NextLoop = std::function<const std::shared_ptr<HttpLoop>&()>;

  /// Binds and listens; connections wait in the system until start(). Errors name the place and say what to do.
  static Result<std::shared_ptr<HttpListener>> open(const HttpEndpoint& endpoint, std::shared_ptr<HttpShared> shared,
                                                    std::shared_ptr<HttpLoop> loop, NextLoop next);
  ~HttpListener();

  const HttpEndpoint& endpoint() const { return endpoint_; }  ///< with the port that the system chose
  void start();                                               ///< any thread
  void close();                                               ///< the loop's thread, or after it ended
  using TlsContext = std::shared_ptr<boost::asio::ssl::context>;
  void set_tls(TlsContext context);  ///< any thread; connections that are there keep the old one

 private:
  struct Impl;
  HttpListener(HttpEndpoint endpoint, std::shared_ptr<HttpShared> shared, std::shared_ptr<HttpLoop> loop,
               NextLoop next);
  Status bind_unix();
  Status bind_network();
  void accept();
  void pause();
  void take(boost::asio::generic::stream_protocol::socket socket, const std::shared_ptr<HttpLoop>& loop);

  HttpEndpoint endpoint_;
  std::shared_ptr<HttpShared> shared_;
  std::shared_ptr<HttpLoop> loop_;
  NextLoop next_;
  std::unique_ptr<Impl> impl_;
  std::mutex tls_mutex_;
  TlsContext tls_;
};

}  // namespace tailor
