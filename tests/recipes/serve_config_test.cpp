// serve.yaml: what it says, and what is wrong with it.

#include "recipes/serve_config.h"

#include <gtest/gtest.h>

namespace tailor {
namespace {

ServeRequest read(std::string_view text) {
  return parse_serve_config(text, "/etc/tailor/serve.yaml").value();
}

std::string error_of(std::string_view text) {
  const auto got = parse_serve_config(text, "serve.yaml");
  return got ? "read" : to_string(got.error());
}

TEST(ServeConfig, ReadsEverySetting) {
  const ServeRequest got = read(R"(
listen: [127.0.0.1:9000, "unix:/run/tailor.sock"]
tls: {certificate: server.pem, key: /secret/key.pem, client_ca: ca.pem, hsts_days: 30}
allowed_origins: [https://shop.example, "http://localhost:3000"]
data: data
threads: 3
cache_bytes: 2GB
max_context: 4096
models:
  - {name: chat, model: smollm2-135m-instruct, adapters: [{name: polite, path: polite/package}]}
  - {name: labels, package: runs/tickets/package}
  - stored: support@2
adapters_root: adapters
keys: {file: keys.yaml, required: true}
nearest_rows: false
limits: {body_bytes: 1MiB, choices: 2, prompts: 3, texts: 4, read_bytes: 10kB, messages: 5, batches: 10, jobs: 11, stored_bytes: 5GB, waiting_requests: 6, waiting_tokens: 7, waiting_time: 20s, connections: 8, connections_per_address: 9}
timeouts: {request: 2m, drain: 5s, header: 1s, idle: 2s, body: 3s, write: 500ms}
log: {level: warning, file: log/tailor.log, max_bytes: 1MB, max_age: 30d, requests: false, addresses: false}
metrics: {compat: vllm}
traces: {endpoint: "http://127.0.0.1:4318", ratio: 0.25, service_name: support}
)");
  EXPECT_EQ(got.listen, (std::vector<std::string>{"127.0.0.1:9000", "unix:/run/tailor.sock"}));
  EXPECT_EQ(got.tls_certificate, "/etc/tailor/server.pem");
  EXPECT_EQ(got.tls_key, "/secret/key.pem");
  EXPECT_EQ(got.tls_client_ca, "/etc/tailor/ca.pem");
  EXPECT_EQ(got.hsts_days, 30);
  EXPECT_TRUE(check_tls(got));
  EXPECT_EQ(got.allowed_origins, (std::vector<std::string>{"https://shop.example", "http://localhost:3000"}));
  EXPECT_EQ(got.data, "/etc/tailor/data");
  EXPECT_EQ(got.threads, 3);
  EXPECT_EQ(got.cache_bytes, 2'000'000'000u);
  EXPECT_EQ(got.max_context, 4096);
  ASSERT_EQ(got.served.size(), 3u);
  EXPECT_EQ(got.served[0].name, "chat");
  EXPECT_EQ(got.served[0].model, "smollm2-135m-instruct") << "a name, since there is no such file";
  ASSERT_EQ(got.served[0].adapters.size(), 1u);
  EXPECT_EQ(got.served[0].adapters[0].name, "polite");
  EXPECT_EQ(got.served[0].adapters[0].path, "/etc/tailor/polite/package");
  EXPECT_EQ(got.served[1].package, "/etc/tailor/runs/tickets/package");
  EXPECT_EQ(got.served[2].stored, "support@2");
  EXPECT_EQ(got.served[2].where, "/etc/tailor/serve.yaml:12");
  EXPECT_EQ(got.adapters_root, "/etc/tailor/adapters");
  EXPECT_EQ(got.keys_file, "/etc/tailor/keys.yaml");
  EXPECT_TRUE(got.keys_required);
  EXPECT_EQ(got.limits.body_bytes, 1u << 20);
  EXPECT_EQ(got.limits.choices, 2);
  EXPECT_EQ(got.limits.prompts, 3u);
  EXPECT_EQ(got.limits.texts, 4u);
  EXPECT_EQ(got.limits.read_bytes, 10'000u);
  EXPECT_FALSE(got.nearest_rows);
  EXPECT_EQ(got.limits.messages, 5u);
  EXPECT_EQ(got.limits.batches, 10);
  EXPECT_EQ(got.limits.jobs, 11);
  EXPECT_EQ(got.limits.stored_bytes, 5'000'000'000);
  EXPECT_EQ(got.queue.waiting_time, std::chrono::seconds(20));
  EXPECT_EQ(got.queue.requests, 6u);
  EXPECT_EQ(got.queue.tokens, 7u);
  EXPECT_EQ(got.http_limits.connections, 8u);
  EXPECT_EQ(got.http_limits.connections_per_address, 9u);
  EXPECT_EQ(got.limits.request_timeout, std::chrono::minutes(2));
  EXPECT_EQ(got.drain_timeout, std::chrono::seconds(5));
  EXPECT_EQ(got.timeouts.header, std::chrono::seconds(1));
  EXPECT_EQ(got.timeouts.idle, std::chrono::seconds(2));
  EXPECT_EQ(got.timeouts.body, std::chrono::seconds(3));
  EXPECT_EQ(got.timeouts.write, std::chrono::milliseconds(500));
  EXPECT_EQ(got.request_log_options.least, LogLevel::kWarning);
  EXPECT_EQ(got.log.file, "/etc/tailor/log/tailor.log");
  EXPECT_EQ(got.log.max_bytes, 1'000'000u);
  EXPECT_EQ(got.log.max_age, std::chrono::hours(24 * 30));
  EXPECT_FALSE(got.log_requests);
  EXPECT_FALSE(got.request_log_options.addresses);
  EXPECT_TRUE(got.vllm_metrics);
  ASSERT_TRUE(got.traces);
  EXPECT_EQ(got.traces->endpoint, "http://127.0.0.1:4318");
  EXPECT_EQ(got.traces->ratio, 0.25);
  EXPECT_EQ(got.traces->service_name, "support");
}

TEST(ServeConfig, AnEmptyFileSaysNothing) {
  const ServeRequest got = read("# nothing\n");
  EXPECT_EQ(got.listen, ServeRequest{}.listen);
  EXPECT_TRUE(got.served.empty());
  EXPECT_EQ(got.request_log_options.least, LogLevel::kInfo);
  EXPECT_TRUE(got.log_requests && got.request_log_options.addresses && got.log.file.empty());
  EXPECT_FALSE(got.vllm_metrics);
  EXPECT_FALSE(got.traces);
  EXPECT_TRUE(check_tls(got));
}

TEST(ServeConfig, APartOfTlsIsAnError) {
  const auto error = [](std::string_view text) {
    const Status status = check_tls(read(text));
    return status ? "" : status.error().message;
  };
  const std::string begin = "TLS needs certificate and key: given ";
  EXPECT_EQ(error("tls: {certificate: a, key: b}\n"), "");
  EXPECT_EQ(error("tls:\n"), "");
  EXPECT_EQ(error("tls: {certificate: a}\n"), begin + "certificate, missing key");
  EXPECT_EQ(error("tls: {key: a, client_ca: b}\n"), begin + "key, client_ca, missing certificate");
  EXPECT_EQ(error("tls: {client_ca: a}\n"), begin + "client_ca, missing certificate and key");
  EXPECT_EQ(error("tls: {hsts_days: 30}\n"), begin + "hsts_days, missing certificate and key");
}

TEST(ServeConfig, UnknownSettingsNameLineAndNearest) {
  EXPECT_EQ(error_of("listen: 127.0.0.1:1\nmodles: []\n"),
            "serve.yaml:2: there is no setting modles (did you mean models?)");
  EXPECT_EQ(error_of("limits:\n  body_byte: 1MB\n"),
            "serve.yaml:2: there is no setting limits.body_byte (did you mean body_bytes?)");
  EXPECT_EQ(error_of("limits:\n  batchs: 5\n"),
            "serve.yaml:2: there is no setting limits.batchs (did you mean batches?)");
  EXPECT_EQ(error_of("models:\n  - model: a\n    adapter: []\n"),
            "serve.yaml:3: there is no setting models.adapter (did you mean adapters?)");
  EXPECT_NE(error_of("keys: {zzzzzz: 1}\n").find("known here: file, required"), std::string::npos);
}

TEST(ServeConfig, WhatIsNotBuiltIsRefusedByName) {
  for (const std::string name :
       {"routes", "providers", "guards", "guard", "drift", "widget", "cluster", "rag", "retrieval"})
    EXPECT_EQ(error_of("threads: 1\n" + name + ": {}\n").find("serve.yaml:2: " + name + " is not built yet"), 0u)
        << error_of(name + ": {}\n");
}

TEST(ServeConfig, WrongValuesNameTheLine) {
  const std::pair<const char*, const char*> cases[] = {
      {"threads: none\n", "serve.yaml:1: threads should be a whole number"},
      {"threads: 0\n", "serve.yaml:1: threads should be a whole number"},
      {"limits:\n  batches: 0\n", "serve.yaml:2: batches should be a whole number"},
      {"limits:\n  jobs: 0\n", "serve.yaml:2: jobs should be a whole number"},
      {"threads: 1.5\n", "serve.yaml:1: threads should be a whole number"},
      {"\nthreads: 1\nthreads: 2\n", "serve.yaml:3: threads is given twice, first in line 2"},
      {"cache_bytes: 2 apples\n", "serve.yaml:1: cache_bytes should be a size"},
      {"timeouts:\n  request: 90\n", "serve.yaml:2: request should be a time up to a day with its unit"},
      {"keys:\n  required: perhaps\n", "serve.yaml:2: required should be true or false"},
      {"keys: yes\n", "serve.yaml:1: keys should be settings"},
      {"listen: 8080\n", "serve.yaml:1: "},
      {"listen: []\n", "serve.yaml:1: listen should be an address"},
      {"tls: {certificate: a.pem, key: }\n", "serve.yaml:1: tls.key should be given or left out, it is nothing"},
      {"tls:\n  certificate:\n  key:\n", "serve.yaml:2: tls.certificate should be given or left out"},
      {"tls: {key: \"\"}\n", "serve.yaml:1: key should be a path"},
      {"allowed_origins: \"*\"\n", "serve.yaml:1: allowed_origins: \"*\" is no origin"},
      {"allowed_origins:\n  - https://a.example\n  - https://b.example/\n",
       "serve.yaml:3: allowed_origins: \"https://b.example/\" is no origin"},
      {"allowed_origins: []\n", "serve.yaml:1: allowed_origins should be an origin"},
      {"models: chat\n", "serve.yaml:1: models should be a list"},
      {"models:\n  - name: a\n", "serve.yaml:2: a model is one of model, package and stored"},
      {"models:\n  - {model: a, stored: b}\n", "serve.yaml:2: a model is one of model, package and stored"},
      {"models:\n  - {stored: a, adapters: [{name: b, path: c}]}\n", "serve.yaml:2: adapters stand on a base model"},
      {"models:\n  - {model: a, adapters: [{name: b}]}\n", "serve.yaml:2: an adapter needs name and path"},
      {"log: {level: loud}\n", "serve.yaml:1: level should be one of debug, info, warning"},
      {"log:\n  requests: some\n", "serve.yaml:2: requests should be true or false"},
      {"log:\n  content: true\n", "serve.yaml:2: there is no setting log.content"},
      {"metrics: {compat: tgi}\n", "serve.yaml:1: compat should be vllm"},
      {"metrics: {port: 9090}\n", "serve.yaml:1: there is no setting metrics.port"},
      {"traces: {endpoint: collector}\n", "serve.yaml:1: traces.endpoint should be an http or https URL"},
      {"traces:\n  ratio: 2\n", "serve.yaml:2: ratio should be a number from 0 to 1"},
      {"- a\n", "serve.yaml:1: the file should be settings"},
  };
  for (const auto& [text, expected] : cases) EXPECT_EQ(error_of(text).find(expected), 0u) << text << error_of(text);
}

}  // namespace
}  // namespace tailor
