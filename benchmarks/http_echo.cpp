// The HTTP server alone, with nothing behind it: what its own work costs.
//
//   bench_http_echo --listen 127.0.0.1:8099 --threads 1
//   wrk -t1 -c64 -d5s http://127.0.0.1:8099/v1/models      one prepared answer
//   wrk -t1 -c64 -d5s -s post.lua .../echo                 the body back
//   curl -N http://127.0.0.1:8099/stream                   100 events

#include <CLI/CLI.hpp>
#include <csignal>
#include <cstdio>

#include "serve/http_server.h"

namespace {

using namespace tailor;

class Echo final : public HttpHandler {
 public:
  HttpAdmission admit(const HttpHead& head) override {
    HttpAdmission admission;
    admission.max_body_bytes = head.path == "/echo" ? 16 << 20 : 0;
    if (head.path != "/echo" && head.path != "/v1/models" && head.path != "/stream") {
      admission.refusal = HttpResponse{404, {}, "not found\n"};
    }
    return admission;
  }

  void handle(HttpRequest&& request, std::shared_ptr<HttpResponder> responder) override {
    if (request.head.path == "/v1/models") return responder->send(models_);
    if (request.head.path == "/echo") return responder->send({200, {}, std::move(request.body)});
    responder->begin_stream(200, {{"Content-Type", "text/event-stream"}});
    for (int i = 0; i < 100; ++i) responder->write("data: {\"token\": " + std::to_string(i) + "}\n\n");
    responder->finish();
  }

 private:
  std::shared_ptr<const PreparedResponse> models_ = std::make_shared<PreparedResponse>(HttpResponse{
      200,
      {{"Content-Type", "application/json"}},
      R"({"object":"list","data":[{"id":"smollm2","object":"model","created":1760000000,"owned_by":"tailor"}]})"});
};

}  // namespace

int main(int argc, char** argv) {
  std::string listen = "127.0.0.1:8099";
  HttpServerOptions options;
  CLI::App app("the HTTP server with nothing behind it");
  app.add_option("--listen", listen, "HOST:PORT or unix:/PATH");
  app.add_option("--threads", options.io_threads, "I/O threads");
  CLI11_PARSE(app, argc, argv);
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGINT);
  sigaddset(&signals, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  Echo echo;
  options.endpoints = {parse_endpoint(listen).value()};
  HttpServer server(echo, options);
  server.start().value();
  std::printf("listening at %s\n", to_string(server.endpoints()[0]).c_str());
  std::fflush(stdout);
  int signal = 0;
  sigwait(&signals, &signal);
  server.stop();
  std::printf("%llu requests\n", static_cast<unsigned long long>(server.metrics().requests));
}
