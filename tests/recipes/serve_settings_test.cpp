// serve.yaml through the program: what its settings of log, metrics and traces do.

#include "infer/test_models.h"
#include "serve/test_server.h"
#include "tests/recipes/served.h"

namespace tailor::test {
namespace {

TEST(ServeSettings, LogMetricsAndTracesOfAFile) {
  const TemporaryDirectory dir;
  TestHandler handler;
  Event traced;
  handler.handle_with = [&](HttpRequest&& request, std::shared_ptr<HttpResponder> responder) {
    if (request.head.path == "/v1/traces" && request.body.find("support-desk") != std::string::npos) traced.set();
    responder->send({200, {{"Content-Type", "application/json"}}, "{}"});
  };
  TestServer collector(handler);
  const auto file = dir.path() / "serve.yaml";
  write_file_atomic(file, "models: [{model: " + tailor::testing::tiny_llama().string() + "}]\n" +
                              "threads: 1\n"
                              "log: {level: info, file: server.log, addresses: false}\n"
                              "metrics: {compat: vllm}\n"
                              "traces: {endpoint: \"http://127.0.0.1:" +
                              std::to_string(collector.port) + "\", service_name: support-desk}\n")
      .value();
  {
    setenv("OTEL_SERVICE_NAME", "of-the-environment", 1);
    Served server({"--config", file.string()});
    unsetenv("OTEL_SERVICE_NAME");
    ASSERT_FALSE(server.line().empty());
    server.ask("POST", "/v1/completions", {{"prompt", "secret words"}, {"max_tokens", 1}});
    const std::string metrics = server.client().ask(Served::request("GET", "/metrics", "")).body;
    EXPECT_TRUE(contains(metrics, "vllm:num_requests_running"));
    EXPECT_TRUE(traced.wait()) << "no span came";
    server.signal(SIGTERM);
    EXPECT_EQ(server.wait(), 0);
  }
  const std::string log = read_file(dir.path() / "server.log").value();
  EXPECT_TRUE(contains(log, "\"route\":\"/v1/completions\"")) << log;
  EXPECT_FALSE(contains(log, "remote_address")) << log;
  EXPECT_FALSE(contains(log, "secret words")) << log;
}

TEST(ServeSettings, FlagsWinOverTheFile) {
  const TemporaryDirectory dir;
  const auto file = dir.path() / "serve.yaml", other = dir.path() / "other.log";
  write_file_atomic(file, "models: [{model: " + tailor::testing::tiny_llama().string() + "}]\n" +
                              "threads: 1\nlog: {level: info, file: server.log, requests: false}\n")
      .value();
  {
    Served server({"--config", file.string(), "--log-file", other.string(), "--log-level", "debug"});
    server.ask("GET", "/v1/models");
    server.signal(SIGTERM);
    EXPECT_EQ(server.wait(), 0);
  }
  EXPECT_FALSE(std::filesystem::exists(dir.path() / "server.log"));
  EXPECT_FALSE(contains(read_file(other).value(), "\"route\"")) << "what no flag says stays as the file has it";
}

}  // namespace
}  // namespace tailor::test
