#pragma once
/// A server whose handler is two functions, at a port that the system chose.

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <utility>

#include "serve/http_server.h"
#include "serve/test_client.h"

namespace tailor::test {

/// Something that another thread does; waiting for it has a generous time-out.
class Event {
 public:
  void set() {
    const std::lock_guard lock(mutex_);
    set_ = true;
    changed_.notify_all();
  }
  bool wait() {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, std::chrono::seconds(20), [&] { return set_; });
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool set_ = false;
};

/// Waits until `holds`, for what can only be looked at.
template <typename Condition>
bool eventually(Condition holds) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  while (!holds()) {
    if (std::chrono::steady_clock::now() > end) return false;
    std::this_thread::yield();
  }
  return true;
}

class TestHandler : public HttpHandler {
 public:
  using Admit = std::function<HttpAdmission(const HttpHead&)>;
  using Handle = std::function<void(HttpRequest&&, std::shared_ptr<HttpResponder>)>;

  /// Takes bodies up to 1 MiB and answers "METHOD path?query body".
  TestHandler() {
    admit_with = [](const HttpHead&) {
      HttpAdmission admission;
      admission.max_body_bytes = 1 << 20;
      return admission;
    };
    handle_with = [](HttpRequest&& request, std::shared_ptr<HttpResponder> responder) {
      const HttpHead& head = request.head;
      responder->send({200, {}, head.method + " " + head.path + "?" + head.query + " " + request.body});
    };
  }
  HttpAdmission admit(const HttpHead& head) override { return admit_with(head); }
  void handle(HttpRequest&& request, std::shared_ptr<HttpResponder> responder) override {
    handle_with(std::move(request), std::move(responder));
  }
  Admit admit_with;
  Handle handle_with;
};

inline HttpServerOptions local_options() {
  HttpServerOptions options;
  options.endpoints.push_back({.host = "127.0.0.1"});
  return options;
}

inline std::string post(const std::string& target, const std::string& body) {
  return "POST " + target + " HTTP/1.1\r\nHost: test\r\nContent-Length: " + std::to_string(body.size()) + "\r\n\r\n" +
         body;
}

/// Started; set the handler's functions before.
struct TestServer {
  explicit TestServer(TestHandler& handler, HttpServerOptions options = local_options())
      : server(handler, std::move(options)) {
    server.start().value();
    port = server.endpoints()[0].port;
  }
  TestClient client() const { return TestClient::to_port(port); }
  /// Of a connection of its own.
  Answer ask(std::string_view request) const { return client().ask(request); }
  const HttpMetrics& metrics() const { return server.metrics(); }
  bool no_connections() {
    return eventually([&] { return metrics().open_connections == 0; });
  }
  HttpServer server;
  std::uint16_t port = 0;
};

}  // namespace tailor::test
