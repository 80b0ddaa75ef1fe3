// Metrics as Prometheus finds them: the format, what is counted, and that all is there from the start.

#include <gtest/gtest.h>

#include <optional>
#include <set>

#include "serve/metric_parser.h"
#include "serve/server_metrics.h"
#include "serve/test_api.h"
#include "serve/test_packages.h"

namespace tailor {
namespace {

using test::Answer;
using test::TestApi;
using test::TestClient;
using Labels = std::map<std::string, std::string>;

/// An API whose metrics are on, and what they say.
struct Counted {
  explicit Counted(ServerMetricsOptions options = {}, ApiServerOptions api_options = {})
      : api(std::move(api_options), {}, nullptr, &metrics, options) {}
  std::string text() {
    const Answer answer = api.client().ask("GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n");
    EXPECT_EQ(answer.status, 200);
    EXPECT_EQ(*answer.headers.find("Content-Type"), "text/plain; version=0.0.4; charset=utf-8");
    return answer.body;
  }
  std::vector<MetricFamily> families() { return parse_metrics(text()).value(); }
  /// Of one sample; NaN where it is not there.
  double value(const std::string& name, const Labels& labels = {}) {
    for (const MetricFamily& family : families()) {
      for (const MetricSample& sample : family.samples) {
        if (sample.name == name && sample.labels == labels) return sample.value;
      }
    }
    return std::nan("");
  }
  std::unique_ptr<ServerMetrics> metrics;
  TestApi api;
};

// Bounds as texts: rules and boards compare them as such. All but the last are vLLM's, written out a second time.
using Bounds = std::vector<std::string>;
const Bounds kToFirstToken{"0.001", "0.005", "0.01", "0.02",  "0.04",  "0.06",  "0.08", "0.1",
                           "0.25",  "0.5",   "0.75", "1.0",   "2.5",   "5.0",   "7.5",  "10.0",
                           "20.0",  "40.0",  "80.0", "160.0", "640.0", "2560.0"};
const Bounds kBetweenTokens{"0.01", "0.025", "0.05", "0.075", "0.1", "0.15", "0.2",  "0.3",  "0.4", "0.5",
                            "0.75", "1.0",   "2.5",  "5.0",   "7.5", "10.0", "20.0", "40.0", "80.0"};
const Bounds kWhole{"0.3",  "0.5",  "0.8",  "1.0",  "1.5",   "2.0",   "2.5",   "5.0",   "10.0",   "15.0",  "20.0",
                    "30.0", "40.0", "50.0", "60.0", "120.0", "240.0", "480.0", "960.0", "1920.0", "7680.0"};
const Bounds kSizes{"1.0",   "2.0",    "5.0",    "10.0",   "20.0",    "50.0",    "100.0",   "200.0",
                    "500.0", "1000.0", "2000.0", "5000.0", "10000.0", "20000.0", "50000.0", "100000.0"};
const Bounds kAsked{"1.0", "2.0", "5.0", "10.0", "20.0"};
const Bounds kSteps{"1.0",   "8.0",    "16.0",   "32.0",   "64.0",   "128.0",  "256.0",
                    "512.0", "1024.0", "2048.0", "4096.0", "8192.0", "16384.0"};
const Bounds kBatched{"0.001", "0.0025", "0.005", "0.01", "0.025", "0.05", "0.1", "0.25",
                      "0.5",   "1.0",    "2.5",   "5.0",  "10.0",  "30.0", "60.0"};
const Bounds kCounter{}, kGauge{};  // have none

/// Every family of a server without a store, logs and traces, which write their own.
const std::map<std::string, const Bounds*>& told_families() {
  static const std::map<std::string, const Bounds*> kFamilies{
      // Of the server.
      {"tailor_build_info", &kGauge},
      {"tailor_loading", &kGauge},
      {"tailor_draining", &kGauge},
      {"tailor_http_requests_total", &kCounter},
      {"tailor_requests_refused_total", &kCounter},
      {"tailor_waiting_refused_total", &kCounter},
      {"tailor_http_connections", &kGauge},
      {"tailor_http_connections_accepted_total", &kCounter},
      {"tailor_http_connections_refused_total", &kCounter},
      {"tailor_http_accept_errors_total", &kCounter},
      {"tailor_http_bad_requests_total", &kCounter},
      {"tailor_http_disconnects_total", &kCounter},
      {"tailor_http_slow_readers_total", &kCounter},
      {"tailor_http_received_bytes_total", &kCounter},
      {"tailor_http_sent_bytes_total", &kCounter},
      {"tailor_http_handshake_errors_total", &kCounter},
      {"tailor_http_timeouts_total", &kCounter},
      {"process_cpu_seconds_total", &kCounter},
      {"process_resident_memory_bytes", &kGauge},
      {"process_virtual_memory_bytes", &kGauge},
      {"process_threads", &kGauge},
      {"process_start_time_seconds", &kGauge},
      {"process_open_fds", &kGauge},
      {"process_max_fds", &kGauge},
      // Of models.
      {"tailor_models", &kGauge},
      {"tailor_model_info", &kGauge},
      {"tailor_requests_total", &kCounter},
      {"tailor_answers_total", &kCounter},
      {"tailor_model_prompt_tokens_total", &kCounter},
      {"tailor_model_cached_tokens_total", &kCounter},
      {"tailor_model_answer_tokens_total", &kCounter},
      {"tailor_time_to_first_token_seconds", &kToFirstToken},
      {"tailor_time_per_output_token_seconds", &kBetweenTokens},
      {"tailor_request_seconds", &kWhole},
      {"tailor_request_queue_seconds", &kWhole},
      {"tailor_request_prefill_seconds", &kWhole},
      {"tailor_request_decode_seconds", &kWhole},
      {"tailor_request_prompt_tokens", &kSizes},
      {"tailor_request_answer_tokens", &kSizes},
      {"tailor_batched_request_seconds", &kBatched},
      {"tailor_texts_waiting", &kGauge},
      // Of engines.
      {"tailor_requests_running", &kGauge},
      {"tailor_requests_waiting", &kGauge},
      {"tailor_waiting_tokens", &kGauge},
      {"tailor_waiting_seconds", &kGauge},
      {"tailor_drain_tokens_per_second", &kGauge},
      {"tailor_kv_cache_usage_ratio", &kGauge},
      {"tailor_kv_cache_tokens", &kGauge},
      {"tailor_kv_cache_bytes", &kGauge},
      {"tailor_kept_prefix_bytes", &kGauge},
      {"tailor_engine_lanes", &kGauge},
      {"tailor_prefix_cache_queries_total", &kCounter},
      {"tailor_prefix_cache_hits_total", &kCounter},
      {"tailor_prompt_tokens_total", &kCounter},
      {"tailor_generation_tokens_total", &kCounter},
      {"tailor_computed_tokens_total", &kCounter},
      {"tailor_engine_steps_total", &kCounter},
      {"tailor_engine_step_tokens", &kSteps},
      {"tailor_preemptions_total", &kCounter},
      // As vLLM names them.
      {"vllm:num_requests_running", &kGauge},
      {"vllm:num_requests_waiting", &kGauge},
      {"vllm:kv_cache_usage_perc", &kGauge},
      {"vllm:gpu_cache_usage_perc", &kGauge},
      {"vllm:lora_requests_info", &kGauge},
      {"vllm:cache_config_info", &kGauge},
      {"vllm:prompt_tokens_total", &kCounter},
      {"vllm:generation_tokens_total", &kCounter},
      {"vllm:num_preemptions_total", &kCounter},
      {"vllm:prefix_cache_queries_total", &kCounter},
      {"vllm:prefix_cache_hits_total", &kCounter},
      {"vllm:request_success_total", &kCounter},
      {"vllm:time_to_first_token_seconds", &kToFirstToken},
      {"vllm:time_per_output_token_seconds", &kBetweenTokens},
      {"vllm:inter_token_latency_seconds", &kBetweenTokens},
      {"vllm:e2e_request_latency_seconds", &kWhole},
      {"vllm:request_queue_time_seconds", &kWhole},
      {"vllm:request_inference_time_seconds", &kWhole},
      {"vllm:request_prefill_time_seconds", &kWhole},
      {"vllm:request_decode_time_seconds", &kWhole},
      {"vllm:request_prompt_tokens", &kSizes},
      {"vllm:request_generation_tokens", &kSizes},
      {"vllm:request_max_num_generation_tokens", &kSizes},
      {"vllm:request_params_n", &kAsked},
      {"vllm:request_params_max_tokens", &kSizes},
      {"vllm:iteration_tokens_total", &kSteps},
  };
  return kFamilies;
}

/// Of the series with these labels, in the order in which they are written.
Bounds bounds_of(const MetricFamily& family, const Labels& labels) {
  Bounds out;
  for (MetricSample sample : family.samples) {
    if (sample.name != family.name + "_bucket") continue;
    const std::string bound = sample.labels["le"];
    sample.labels.erase("le");
    if (sample.labels == labels) out.push_back(bound);
  }
  return out;
}

TEST(ServerMetrics, AreThereFromTheStartWithZero) {
  Counted counted({.vllm_names = true});
  const Labels ours{{"model", "tiny"}}, vllm{{"model_name", "tiny"}, {"engine", "0"}};
  std::set<std::string> told, expected;
  for (const auto& [name, bounds] : told_families()) expected.insert(name);
  for (const MetricFamily& family : counted.families()) {
    SCOPED_TRACE(family.name);
    told.insert(family.name);
    EXPECT_FALSE(family.help.empty());
    EXPECT_FALSE(family.samples.empty());
    if (!expected.contains(family.name)) continue;
    const Bounds* bounds = told_families().at(family.name);
    EXPECT_EQ(family.type, bounds == &kCounter ? "counter" : bounds == &kGauge ? "gauge" : "histogram");
    if (family.type == "histogram") {
      Bounds all = *bounds;
      all.emplace_back("+Inf");
      EXPECT_EQ(bounds_of(family, family.name.starts_with("vllm:") ? vllm : ours), all);
    }
    if (family.type == "gauge" || family.name.starts_with("process_") || family.name.starts_with("tailor_http_"))
      continue;
    for (const MetricSample& sample : family.samples) EXPECT_EQ(sample.value, 0) << sample.name;
  }
  EXPECT_EQ(told, expected);
  for (const char* name : {"tailor_requests_running", "tailor_requests_waiting", "tailor_waiting_tokens",
                           "tailor_kv_cache_usage_ratio", "tailor_texts_waiting"})
    EXPECT_EQ(counted.value(name, ours), 0) << name;
  for (const char* name : {"vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:kv_cache_usage_perc"})
    EXPECT_EQ(counted.value(name, vllm), 0) << name;
  for (const char* status : {"2xx", "4xx", "499", "5xx"})
    EXPECT_EQ(counted.value("tailor_requests_total", {{"model", "tiny"}, {"status", status}}), 0) << status;
  for (const char* reason : {"stop", "length", "tool_calls", "abort", "error"}) {
    EXPECT_EQ(counted.value("tailor_answers_total", {{"model", "tiny"}, {"finish_reason", reason}}), 0) << reason;
    Labels labels = vllm;
    labels["finished_reason"] = reason;
    EXPECT_EQ(counted.value("vllm:request_success_total", labels), 0) << reason;
  }
  EXPECT_EQ(counted.value("tailor_http_requests_total",
                          {{"method", "POST"}, {"route", "/v1/completions"}, {"status", "2xx"}}),
            0);
  EXPECT_EQ(Counted().text().find("vllm:"), std::string::npos);
}

TEST(ServerMetrics, StepsCountTheTokensThatTheyCompute) {
  Counted counted({.vllm_names = true});
  const test::JsonAnswer answer =
      counted.api.post("/v1/completions", {{"prompt", "Where is my parcel, which was to come on Monday at the latest?"},
                                           {"max_tokens", 4},
                                           {"temperature", 0},
                                           {"ignore_eos", true}});
  ASSERT_EQ(answer.status, 200);
  const auto prompt = answer.json["usage"]["prompt_tokens"].get<double>();
  ASSERT_GT(prompt, 8);
  ASSERT_LT(prompt, 32);
  const auto steps = [&](const std::string& part, const char* bound = nullptr) {
    Labels labels{{"model_name", "tiny"}, {"engine", "0"}};
    if (bound != nullptr) labels["le"] = bound;
    return counted.value("vllm:iteration_tokens_total" + part, labels);
  };
  // One of the prompt, whose logits give the first token, and one of each other token but the last.
  ASSERT_TRUE(test::eventually([&] { return steps("_count") == 4; })) << steps("_count");
  EXPECT_EQ(steps("_sum"), prompt + 3);
  EXPECT_EQ(steps("_bucket", "1.0"), 3);
  EXPECT_EQ(steps("_bucket", "8.0"), 3);
  EXPECT_EQ(steps("_bucket", "32.0"), 4);
  EXPECT_EQ(counted.value("tailor_engine_step_tokens_count", {{"model", "tiny"}}), 4);
  EXPECT_EQ(counted.value("tailor_engine_step_tokens_sum", {{"model", "tiny"}}),
            counted.value("tailor_computed_tokens_total", {{"model", "tiny"}}));
}

TEST(ServerMetrics, AServerOfLabelsHasEverySeriesToo) {
  TemporaryDirectory dir("metrics");
  test::write_neighbours_package(dir.path() / "labels", true);
  Counted counted({.vllm_names = true});
  const auto share = std::make_shared<ComputeShare>(2);
  counted.api.models().put(serve_package(dir.path() / "labels", "", {.share = share}).value());
  counted.api.models().remove("tiny");
  const std::set<std::string> state{"tailor_models", "tailor_model_info", "tailor_build_info", "vllm:cache_config_info",
                                    "vllm:lora_requests_info"};
  for (const MetricFamily& family : counted.families()) {
    EXPECT_FALSE(family.samples.empty()) << family.name;
    if (!family.name.starts_with("vllm:") && !family.name.starts_with("tailor_requests_")) continue;
    for (const MetricSample& sample : family.samples) {
      EXPECT_TRUE(state.contains(family.name) || sample.value == 0) << sample.name << " " << sample.value;
    }
  }
  const Labels ours{{"model", "labels"}}, vllm{{"model_name", "labels"}, {"engine", "0"}};
  for (const char* name : {"tailor_requests_running", "tailor_requests_waiting", "tailor_kv_cache_usage_ratio",
                           "tailor_prompt_tokens_total", "tailor_generation_tokens_total"})
    EXPECT_EQ(counted.value(name, ours), 0) << name;
  for (const char* name : {"vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:kv_cache_usage_perc",
                           "vllm:prompt_tokens_total", "vllm:e2e_request_latency_seconds_count"})
    EXPECT_EQ(counted.value(name, vllm), 0) << name;

  // What is computed and what waits counts as such.
  std::optional<ComputeShare::Turn> others(std::in_place, *share);
  const std::string ask = TestApi::post_text("/v1/classify", dump_json({{"input", {"one", "two"}}}));
  TestClient first = counted.api.client(), second = counted.api.client();
  first.send(ask);
  ASSERT_TRUE(test::eventually([&] { return counted.value("vllm:num_requests_running", vllm) == 1; }));
  second.send(ask);
  ASSERT_TRUE(test::eventually([&] { return counted.value("vllm:num_requests_waiting", vllm) == 1; }));
  EXPECT_EQ(counted.value("tailor_requests_running", ours), 1);
  EXPECT_EQ(counted.value("tailor_requests_waiting", ours), 1);
  EXPECT_EQ(counted.value("tailor_texts_waiting", ours), 2);
  others.reset();
  EXPECT_EQ(first.read_answer().status, 200);
  EXPECT_EQ(second.read_answer().status, 200);
  EXPECT_EQ(counted.value("tailor_requests_running", ours), 0);
}

TEST(ServerMetrics, LoadingWhileAModelIsLoaded) {
  Counted counted;
  EXPECT_EQ(counted.value("tailor_loading"), 0);
  {
    const ModelRegistry::Loading one(counted.api.models()), two(counted.api.models());
    EXPECT_EQ(counted.value("tailor_loading"), 2);
  }
  EXPECT_EQ(counted.value("tailor_loading"), 0);
}

TEST(ServerMetrics, ATextIsCountedBeforeItsReaderHasIt) {
  Counted counted;
  const Json ask{{"model", "tiny"},
                 {"prompt", "Where is my parcel, which was to come on Monday at the latest, and who has it now?"},
                 {"max_tokens", 5},
                 {"n", 2},
                 {"ignore_eos", true}};
  const test::JsonAnswer answer = counted.api.post("/v1/completions", ask);
  ASSERT_EQ(answer.status, 200);
  const Labels tiny{{"model", "tiny"}};
  EXPECT_EQ(counted.value("tailor_requests_total", {{"model", "tiny"}, {"status", "2xx"}}), 1);
  EXPECT_EQ(counted.value("tailor_answers_total", {{"model", "tiny"}, {"finish_reason", "length"}}), 2);
  EXPECT_EQ(counted.value("tailor_model_answer_tokens_total", tiny), 10);
  EXPECT_EQ(counted.value("tailor_model_prompt_tokens_total", tiny),
            answer.json["usage"]["prompt_tokens"].get<double>());
  for (const char* name :
       {"tailor_time_to_first_token_seconds", "tailor_request_seconds", "tailor_request_queue_seconds",
        "tailor_request_prefill_seconds", "tailor_request_decode_seconds", "tailor_request_prompt_tokens"})
    EXPECT_EQ(counted.value(std::string(name) + "_count", tiny), 1) << name;
  EXPECT_EQ(counted.value("tailor_time_per_output_token_seconds_count", tiny),
            8);  // the first of each comes with the prompt
  EXPECT_GT(counted.value("tailor_request_seconds_sum", tiny),
            counted.value("tailor_request_decode_seconds_sum", tiny));
  EXPECT_GT(counted.value("tailor_request_decode_seconds_sum", tiny), 0);
  counted.api.stream("/v1/completions", ask);
  EXPECT_EQ(counted.value("tailor_requests_total", {{"model", "tiny"}, {"status", "2xx"}}), 2);
  EXPECT_EQ(counted.value("tailor_http_requests_total",
                          {{"method", "POST"}, {"route", "/v1/completions"}, {"status", "2xx"}}),
            2);
  EXPECT_TRUE(
      test::eventually([&] { return counted.value("tailor_prefix_cache_hits_total", tiny) > 0; }));  // told by steps
  EXPECT_EQ(counted.value("tailor_http_disconnects_total"), 0);
}

TEST(ServerMetrics, VectorsCountToTheirModel) {
  Counted counted;
  const test::JsonAnswer answer = counted.api.post("/v1/embeddings", {{"input", {"one", "two"}}});
  ASSERT_EQ(answer.status, 200);
  EXPECT_EQ(counted.value("tailor_batched_request_seconds_count", {{"model", "tiny"}}), 1);
  EXPECT_EQ(counted.value("tailor_model_prompt_tokens_total", {{"model", "tiny"}}),
            answer.json["usage"]["prompt_tokens"].get<double>());
  EXPECT_EQ(counted.value("tailor_time_to_first_token_seconds_count", {{"model", "tiny"}}), 0);
}

TEST(ServerMetrics, RefusalsAndNonsenseAreCountedOnce) {
  Counted counted;
  EXPECT_EQ(counted.api.get("/nothing/here").status, 404);
  EXPECT_EQ(counted.api.post("/v1/completions", "{").status, 400);
  EXPECT_EQ(counted.api.post("/v1/completions", {{"model", "made-up"}, {"prompt", "x"}}).status, 404);
  EXPECT_EQ(counted.api.client().ask("NONSENSE\r\n\r\n").status, 400);
  EXPECT_EQ(
      counted.api.client().ask("POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\nx").status,
      415);
  counted.api.api().drain();
  EXPECT_EQ(counted.api.post("/v1/completions", {{"prompt", "x"}}).status, 503);
  const Labels route{{"method", "POST"}, {"route", "/v1/completions"}};
  const auto with = [&](const char* status) {
    Labels out = route;
    out["status"] = status;
    return out;
  };
  EXPECT_EQ(counted.value("tailor_http_requests_total", with("4xx")), 3);
  EXPECT_EQ(counted.value("tailor_http_requests_total", with("5xx")), 1);
  EXPECT_EQ(counted.value("tailor_http_requests_total", {{"method", ""}, {"route", ""}, {"status", "4xx"}}), 2);
  EXPECT_EQ(counted.value("tailor_requests_refused_total", {{"status", "503"}}), 1);
  EXPECT_EQ(counted.value("tailor_requests_total", {{"model", "tiny"}, {"status", "4xx"}}), 0);
  EXPECT_EQ(counted.value("tailor_draining"), 1);
  EXPECT_EQ(counted.text().find("made-up"), std::string::npos);
}

TEST(ServerMetrics, AClientThatGoesIsCountedAs499) {
  Counted counted;
  {
    TestClient client = counted.api.client();
    client.send(TestApi::post_text(
        "/v1/completions", dump_json({{"prompt", "x"}, {"stream", true}, {"max_tokens", 1500}, {"ignore_eos", true}})));
    ASSERT_TRUE(client.read_through("\"text\":").has_value());
    EXPECT_EQ(counted.value("tailor_requests_running", {{"model", "tiny"}}), 1);
    client.abort();
  }
  ASSERT_TRUE(test::eventually([&] {
    return counted.value("tailor_requests_total", {{"model", "tiny"}, {"status", "499"}}) == 1;
  }));
  EXPECT_EQ(counted.value("tailor_answers_total", {{"model", "tiny"}, {"finish_reason", "abort"}}), 1);
  EXPECT_EQ(counted.value("tailor_request_seconds_count", {{"model", "tiny"}}), 0);
  EXPECT_EQ(counted.value("tailor_http_requests_total",
                          {{"method", "POST"}, {"route", "/v1/completions"}, {"status", "2xx"}}),
            0);
}

TEST(ServerMetrics, AdaptersCountToThemselvesAndTheirEngineToItsBase) {
  TemporaryDirectory dir("metrics");
  testing::write_tiny_adapter(dir.path() / "adapter.gguf", 64, "", 0.3);
  Counted counted({.vllm_names = true});
  counted.api.models().put(
      serve_adapter(*counted.api.models().find("tiny"), dir.path(), "a \"quoted\\one\"\n").value());
  const Labels adapter{{"model", "a \"quoted\\one\"\n"}};
  EXPECT_EQ(counted.value("tailor_time_to_first_token_seconds_count", adapter), 0);
  TestClient client = counted.api.client();
  client.send(TestApi::post_text("/v1/completions", dump_json({{"model", adapter.at("model")},
                                                               {"prompt", "x"},
                                                               {"stream", true},
                                                               {"max_tokens", 1500},
                                                               {"ignore_eos", true}})));
  ASSERT_TRUE(client.read_through("\"text\":").has_value());
  EXPECT_EQ(counted.value("tailor_requests_running", {{"model", "tiny"}}), 1);
  bool found = false;
  for (const MetricFamily& family : counted.families()) {
    if (family.name != "vllm:lora_requests_info") continue;
    ASSERT_EQ(family.samples.size(), 1u);
    found = true;
    EXPECT_EQ(family.samples[0].labels.at("running_lora_adapters"), adapter.at("model"));
    EXPECT_EQ(family.samples[0].labels.at("waiting_lora_adapters"), "");
    EXPECT_GT(family.samples[0].value, 1.7e9);
  }
  EXPECT_TRUE(found);
  client.close();
  ASSERT_TRUE(test::eventually([&] {
    return counted.value("tailor_requests_total", {{"model", adapter.at("model")}, {"status", "499"}}) == 1;
  }));
  counted.api.models().remove(adapter.at("model"));
  EXPECT_TRUE(std::isnan(counted.value("tailor_time_to_first_token_seconds_count", adapter)));  // labels stay bounded
}

TEST(ServerMetrics, OpenMetricsWhereItIsAskedFor) {
  Counted counted;
  const Answer answer = counted.api.client().ask(
      "GET /metrics HTTP/1.1\r\nHost: localhost\r\nAccept: "
      "application/openmetrics-text;version=1.0.0,text/plain;q=0.5\r\n\r\n");
  EXPECT_EQ(*answer.headers.find("Content-Type"), "application/openmetrics-text; version=1.0.0; charset=utf-8");
  EXPECT_NE(answer.body.find("# TYPE tailor_http_requests counter\n"), std::string::npos);
  EXPECT_NE(answer.body.find("\ntailor_http_requests_total{"), std::string::npos);
  EXPECT_TRUE(answer.body.ends_with("\n# EOF\n"));
}

TEST(ServerMetrics, AreNotThereWithoutCounting) {
  TestApi api;
  EXPECT_EQ(api.get("/metrics").status, 404);
}

TEST(MetricHistogram, PutsValuesAtOrBelowTheirBound) {
  Histogram histogram(kTokenSeconds);
  histogram.observe(0.01);
  histogram.observe(0.0100001);
  histogram.observe(1000);
  BucketCounts tally(kTokenSeconds);
  tally.observe(0.5, 3);
  histogram.add(tally);
  const BucketCounts now = histogram.read();
  EXPECT_EQ(now.counts()[0], 1u);
  EXPECT_EQ(now.counts()[1], 1u);
  EXPECT_EQ(now.counts()[9], 3u);
  EXPECT_EQ(now.counts().back(), 1u);
  EXPECT_NEAR(now.sum(), 1001.5200001, 1e-9);
}

TEST(MetricText, EscapesAndWritesBoundsAsPythonDoes) {
  MetricText text(MetricText::Format::kPrometheus);
  text.gauge("a", "one\\two\nlines");
  text.sample({{"x", "\"\\\n\xc3\xa9"}, {"y", "\xff"}}, 0.5);
  Histogram histogram(kChoiceCounts);
  histogram.observe(1);
  text.family("h", MetricText::Kind::kHistogram, "h");
  text.histogram({}, histogram);
  const std::string out = std::move(text).finish();
  EXPECT_NE(out.find("# HELP a one\\\\two\\nlines\n# TYPE a gauge\na{x=\"\\\"\\\\\\n\xc3\xa9\",y=\"?\"} 0.5\n"),
            std::string::npos)
      << out;
  EXPECT_NE(out.find("h_bucket{le=\"1.0\"} 1\nh_bucket{le=\"2.0\"} 1\n"), std::string::npos) << out;
  EXPECT_EQ(parse_metrics(out).value()[0].samples[0].labels.at("x"), "\"\\\n\xc3\xa9");
}

struct BadMetrics {
  const char* text;
  const char* told;
};
class MetricParserRefuses : public ::testing::TestWithParam<BadMetrics> {};
TEST_P(MetricParserRefuses, WithTheReason) {
  const auto read = parse_metrics(GetParam().text);
  ASSERT_FALSE(read.has_value());
  EXPECT_NE(read.error().message.find(GetParam().told), std::string::npos) << read.error().message;
}
INSTANTIATE_TEST_SUITE_P(
    All, MetricParserRefuses,
    ::testing::Values(
        BadMetrics{"a 1\n", "family above"}, BadMetrics{"# HELP a b\n# TYPE a gauge\na 1", "last line"},
        BadMetrics{"# HELP a b\n# TYPE a gauge\na 1\n# HELP a b\n", "twice"},
        BadMetrics{"# HELP a b\n# TYPE a gauge\n# TYPE a gauge\n", "does not follow"},
        BadMetrics{"# HELP a b\n# TYPE a counter\n", "_total"}, BadMetrics{"# HELP a b\n# TYPE a thing\n", "no type"},
        BadMetrics{"# HELP a b\n", "no TYPE"}, BadMetrics{"# HELP a b\n# TYPE a gauge\na 1\na 1\n", "twice"},
        BadMetrics{"# HELP a b\n# TYPE a gauge\na{x=\"1\" 1\n", "','"},
        BadMetrics{"# HELP a b\n# TYPE a gauge\na{x=\"\\t\"} 1\n", "escape"},
        BadMetrics{"# HELP a b\n# TYPE a gauge\na{x=\"1\",x=\"2\"} 1\n", "label x"},
        BadMetrics{"# HELP a b\n# TYPE a gauge\na{1=\"1\"} 1\n", "label"},
        BadMetrics{"# HELP a b\n# TYPE a gauge\na one\n", "no number"},
        BadMetrics{"# HELP a_total b\n# TYPE a_total counter\na_total -1\n", "below 0"},
        BadMetrics{"# HELP h b\n# TYPE h histogram\nh_bucket{le=\"1\"} 1\nh_sum 1\nh_count 1\n", "+Inf"},
        BadMetrics{
            "# HELP h b\n# TYPE h histogram\nh_bucket{le=\"1\"} 2\nh_bucket{le=\"+Inf\"} 1\nh_sum 1\nh_count 1\n",
            "fall"},
        BadMetrics{
            "# HELP h b\n# TYPE h histogram\nh_bucket{le=\"1\"} 1\nh_bucket{le=\"+Inf\"} 2\nh_sum 1\nh_count 1\n",
            "_count"},
        BadMetrics{"# HELP h b\n# TYPE h histogram\nh_bucket{le=\"2\"} 1\nh_bucket{le=\"1\"} 1\nh_bucket{le=\"+Inf\"} "
                   "2\nh_sum 1\nh_count 2\n",
                   "rise"}));

}  // namespace
}  // namespace tailor
