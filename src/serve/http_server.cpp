#include "serve/http_server.h"

#include <algorithm>
#include <utility>

#include "serve/http_listener.h"
#include "serve/http_loop.h"
#include "serve/http_shared.h"
#include "serve/http_tls.h"

namespace tailor {
namespace {

/// Short enough that every deadline is kept to an eighth.
std::chrono::milliseconds tick_of(const HttpTimeouts& t) {
  const auto shortest = std::min({t.handshake, t.header, t.idle, t.body, t.body_window, t.write, t.linger});
  return std::clamp(shortest / 8, std::chrono::milliseconds(2), std::chrono::milliseconds(200));
}

Status check(const HttpServerOptions& options) {
  const auto bad = [](const char* message) { return Error{ErrorCode::kInvalidArgument, message, ""}; };
  if (options.endpoints.empty()) return bad("the HTTP server has no place to listen at");
  if (options.io_threads < 1 || options.io_threads > 256) return bad("io_threads must be between 1 and 256");
  const HttpParserLimits& parser = options.limits.parser;
  if (parser.header_bytes < 256 || parser.target_bytes > parser.header_bytes) {
    return bad("header_bytes must be at least 256, and target_bytes not above it");
  }
  return {};
}

}  // namespace

struct HttpServer::Impl {
  HttpServerOptions options;
  std::shared_ptr<HttpShared> shared;
  std::vector<std::shared_ptr<HttpLoop>> loops;  // the first one accepts
  std::vector<std::shared_ptr<HttpListener>> listeners;
  std::size_t next_loop = 0;
  bool stopped = false;

  void close_listeners() {
    for (const auto& listener : listeners) {
      loops[0]->post([listener] { listener->close(); });
    }
  }
};

HttpServer::HttpServer(HttpHandler& handler, HttpServerOptions options) : impl_(std::make_unique<Impl>()) {
  impl_->shared = std::make_shared<HttpShared>(options, handler);
  impl_->options = std::move(options);
}

HttpServer::~HttpServer() {
  stop();
}

Status HttpServer::start() {
  if (!impl_->loops.empty()) return Error{ErrorCode::kInternal, "the HTTP server was started before", ""};
  TAILOR_CHECK(check(impl_->options));
  std::vector<std::shared_ptr<HttpLoop>> loops;
  for (int i = 0; i < impl_->options.io_threads; ++i) {
    loops.push_back(std::make_shared<HttpLoop>(tick_of(impl_->options.timeouts)));
  }
  Impl* impl = impl_.get();
  const auto next = [impl]() -> const std::shared_ptr<HttpLoop>& {
    return impl->loops[impl->next_loop++ % impl->loops.size()];
  };
  std::vector<std::shared_ptr<HttpListener>> listeners;
  for (const HttpEndpoint& endpoint : impl_->options.endpoints) {
    TAILOR_TRY(auto listener, HttpListener::open(endpoint, impl_->shared, loops[0], next));
    listeners.push_back(std::move(listener));
  }
  impl_->loops = std::move(loops);
  impl_->listeners = std::move(listeners);
  for (const auto& loop : impl_->loops) loop->start();
  for (const auto& listener : impl_->listeners) listener->start();
  return {};
}

std::vector<HttpEndpoint> HttpServer::endpoints() const {
  std::vector<HttpEndpoint> places;
  for (const auto& listener : impl_->listeners) places.push_back(listener->endpoint());
  return places;
}

void HttpServer::drain() {
  impl_->shared->drain();
}

bool HttpServer::wait_answered(std::chrono::milliseconds timeout) {
  return impl_->shared->wait_answered(timeout);
}

void HttpServer::stop_accepting() {
  if (impl_->loops.empty()) return;
  impl_->close_listeners();
  for (const auto& loop : impl_->loops) {
    loop->post([loop] { loop->finish(); });
  }
}

bool HttpServer::wait_drained(std::chrono::milliseconds timeout) {
  return impl_->shared->wait_empty(timeout);
}

void HttpServer::stop() {
  if (impl_->loops.empty() || std::exchange(impl_->stopped, true)) return;
  impl_->close_listeners();
  for (const auto& loop : impl_->loops) loop->stop();
  impl_->listeners.clear();
}

Status HttpServer::reload_tls() {
  std::vector<std::pair<HttpListener*, HttpListener::TlsContext>> fresh;
  for (const auto& listener : impl_->listeners) {
    if (!listener->endpoint().tls) continue;
    TAILOR_TRY(auto context, load_tls(*listener->endpoint().tls));
    fresh.emplace_back(listener.get(), std::move(context));
  }
  for (auto& [listener, context] : fresh) listener->set_tls(std::move(context));
  return {};
}

const HttpMetrics& HttpServer::metrics() const {
  return *impl_->shared->metrics;
}

}  // namespace tailor
