#pragma once
/// The API over a socket, with a tiny model behind it.

#include <string>
#include <vector>

#include "infer/test_models.h"
#include "serve/api_routes.h"
#include "serve/api_server.h"
#include "serve/http_server.h"
#include "serve/server_metrics.h"
#include "serve/test_client.h"
#include "serve/test_server.h"

namespace tailor::test {

struct JsonAnswer {
  int status = 0;
  HttpHeaders headers;
  Json json;
};

class TestApi {
 public:
  /// `door` and `metrics`, where they are given, outlive this; the latter is made and heard.
  explicit TestApi(ApiServerOptions options = {}, ModelLoadOptions load = {}, Authenticator* door = nullptr,
                   std::unique_ptr<ServerMetrics>* metrics = nullptr, ServerMetricsOptions metrics_options = {})
      : api_(models_, door != nullptr ? *door : open_, log_, counted(std::move(options), metrics, metrics_options)),
        server_(api_, http_options()) {
    if (metrics != nullptr) {
      (*metrics)->watch_http(server_.metrics());
      (*metrics)->set_draining(api_.services().draining);
      api_.services().metrics = metrics->get();
    }
    if (!load.share) load.share = std::make_shared<ComputeShare>(2);
    if (load.cache_bytes == 0) load.cache_bytes = std::uint64_t{64} << 20;
    models_.put(serve_base_model(testing::tiny_llama().string(), "tiny", load).value());
    server_.start().value();
  }
  ~TestApi() { server_.stop(); }
  TestApi(const TestApi&) = delete;
  TestApi& operator=(const TestApi&) = delete;

  TestClient client() { return TestClient::to_port(server_.endpoints()[0].port); }
  ModelRegistry& models() { return models_; }
  ApiServer& api() { return api_; }
  HttpServer& server() { return server_; }
  Engine& engine() { return models_.find("tiny")->text->engine(); }

  static std::string post_text(const std::string& path, const std::string& body, const std::string& fields = "") {
    return "POST " + path + " HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n" + fields +
           "Content-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body;
  }
  JsonAnswer post(const std::string& path, const Json& body, const std::string& fields = "") {
    return read(client().ask(post_text(path, body.is_string() ? body.get<std::string>() : dump_json(body), fields)));
  }
  JsonAnswer get(const std::string& path, const std::string& fields = "") {
    return read(client().ask("GET " + path + " HTTP/1.1\r\nHost: localhost\r\n" + fields + "\r\n"));
  }
  /// The events of a stream; "[DONE]" is the string.
  std::vector<Json> stream(const std::string& path, Json body) {
    body["stream"] = true;
    const Answer answer = client().ask(post_text(path, dump_json(body)));
    EXPECT_EQ(answer.status, 200) << answer.body;
    EXPECT_TRUE(answer.complete);
    return events(answer.body);
  }
  static std::vector<Json> events(const std::string& text) {
    std::vector<Json> out;
    for (std::size_t at = 0; at < text.size();) {
      const std::size_t end = text.find("\n\n", at);
      const std::string line = text.substr(at, end - at);
      at = end + 2;
      if (line.rfind("data: ", 0) != 0) continue;
      out.push_back(line == "data: [DONE]" ? Json("[DONE]") : Json::parse(line.substr(6)));
    }
    return out;
  }

 private:
  static HttpServerOptions http_options() {
    HttpServerOptions out;
    out.endpoints.push_back({.host = "127.0.0.1"});
    out.limits.parser.names_under = api_names_under();
    return out;
  }
  ApiServerOptions counted(ApiServerOptions options, std::unique_ptr<ServerMetrics>* metrics,
                           ServerMetricsOptions metrics_options) {
    if (metrics == nullptr) return options;
    *metrics = std::make_unique<ServerMetrics>(models_, metrics_options);
    options.observers.push_back(metrics->get());
    return options;
  }
  static JsonAnswer read(const Answer& answer) {
    Json json = Json::parse(answer.body, nullptr, false);
    return {answer.status, answer.headers, std::move(json)};
  }
  NullLogger log_;
  ModelRegistry models_;
  OpenDoor open_;
  ApiServer api_;
  HttpServer server_;
};

}  // namespace tailor::test
