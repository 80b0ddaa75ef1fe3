// Traces as a collector receives them: an HTTP server of ours stands in for it.

#include <gtest/gtest.h>

#include <map>

#include "serve/test_api.h"
#include "serve/trace_exporter.h"

namespace tailor {
namespace {

using test::TestApi;

/// Takes what comes; answers the first requests with `failures`.
struct Collector {
  explicit Collector(std::vector<int> failures = {}) : left(std::move(failures)) {
    handler.handle_with = [this](HttpRequest&& request, std::shared_ptr<HttpResponder> responder) {
      const std::lock_guard lock(mutex);
      ++asked;
      if (!left.empty()) {
        const int status = left.front();
        left.erase(left.begin());
        return responder->send({status, {}, ""});
      }
      heads.push_back(request.head);
      bodies.push_back(Json::parse(request.body));
      responder->send({200, {{"Content-Type", "application/json"}}, "{}"});
    };
    server.emplace(handler);
  }
  std::string url() const { return "http://127.0.0.1:" + std::to_string(server->port); }
  std::vector<Json> spans() {
    const std::lock_guard lock(mutex);
    std::vector<Json> out;
    for (const Json& body : bodies) {
      for (const Json& span : body["resourceSpans"][0]["scopeSpans"][0]["spans"]) out.push_back(span);
    }
    return out;
  }
  std::mutex mutex;
  std::vector<int> left;
  int asked = 0;
  std::vector<HttpHead> heads;
  std::vector<Json> bodies;
  test::TestHandler handler;
  std::optional<test::TestServer> server;
};

/// An API whose requests are traced to a collector.
struct Traced {
  explicit Traced(TraceOptions options = {}, std::vector<int> failures = {}) : collector(std::move(failures)) {
    if (options.endpoint.empty()) options.endpoint = collector.url();
    options.backoff = std::chrono::milliseconds(1);
    exporter.emplace(std::move(options), log);
    ApiServerOptions api_options;
    api_options.observers.push_back(&*exporter);
    api.emplace(std::move(api_options));
  }
  std::vector<Json> spans() {
    EXPECT_TRUE(exporter->flush(std::chrono::seconds(20)));
    return collector.spans();
  }
  NullLogger log;
  Collector collector;
  std::optional<TraceExporter> exporter;
  std::optional<TestApi> api;
};

std::map<std::string, Json> attributes(const Json& span) {
  std::map<std::string, Json> out;
  for (const Json& attribute : span["attributes"]) out[attribute["key"]] = attribute["value"];
  return out;
}

Json texts(const Json& array) {
  Json out = Json::array();
  for (const Json& value : array["arrayValue"]["values"]) out.push_back(value["stringValue"]);
  return out;
}

std::int64_t nanoseconds(const Json& span, const char* key) {
  return std::stoll(span[key].get<std::string>());
}

constexpr const char* kParent =
    "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\ntracestate: vendor=1\r\n";

TEST(Trace, ATextIsASpanWithItsPhases) {
  Traced traced({.fields = {{"Authorization", "Basic abc"}}});
  const Json ask{{"prompt", "the secret parcel"},
                 {"max_tokens", 4},
                 {"seed", 7},
                 {"n", 2},
                 {"temperature", 0.5},
                 {"top_p", 0.75},
                 {"stop", {"\u2603\u2603", "<END>"}},
                 {"ignore_eos", true}};
  const test::JsonAnswer answer = traced.api->post("/v1/completions", ask, kParent);
  ASSERT_EQ(answer.status, 200);
  const std::vector<Json> spans = traced.spans();
  ASSERT_EQ(spans.size(), 4u);
  EXPECT_EQ(traced.collector.heads[0].path, "/v1/traces");
  EXPECT_EQ(*traced.collector.heads[0].headers.find("Content-Type"), "application/json");
  EXPECT_EQ(*traced.collector.heads[0].headers.find("Authorization"), "Basic abc");
  const Json& whole = spans[0];
  EXPECT_EQ(whole["name"], "text_completion tiny");
  EXPECT_EQ(whole["kind"], 2);
  EXPECT_EQ(whole["traceId"], "0af7651916cd43dd8448eb211c80319c");
  EXPECT_EQ(whole["parentSpanId"], "b7ad6b7169203331");
  EXPECT_EQ(whole["traceState"], "vendor=1");
  EXPECT_FALSE(whole.contains("status"));
  auto a = attributes(whole);
  EXPECT_EQ(a["gen_ai.operation.name"]["stringValue"], "text_completion");
  EXPECT_EQ(a["gen_ai.provider.name"]["stringValue"], "tailor");
  EXPECT_EQ(a["gen_ai.request.model"]["stringValue"], "tiny");
  EXPECT_EQ(a["gen_ai.request.max_tokens"]["intValue"], "4");
  EXPECT_EQ(a["gen_ai.request.seed"]["intValue"], "7");
  EXPECT_EQ(a["gen_ai.request.temperature"]["doubleValue"], 0.5);
  EXPECT_EQ(a["gen_ai.request.top_p"]["doubleValue"], 0.75);
  EXPECT_EQ(a["gen_ai.request.choice.count"]["intValue"], "2");
  EXPECT_EQ(a["gen_ai.request.stream"]["boolValue"], false);
  EXPECT_EQ(texts(a["gen_ai.request.stop_sequences"]), (Json{"\u2603\u2603", "<END>"}));
  EXPECT_EQ(a["gen_ai.response.model"]["stringValue"], "tiny");
  EXPECT_EQ(a["gen_ai.response.id"]["stringValue"], answer.json["id"]);
  EXPECT_EQ(texts(a["gen_ai.response.finish_reasons"]), (Json{"length", "length"}));
  EXPECT_EQ(a["gen_ai.usage.input_tokens"]["intValue"],
            std::to_string(answer.json["usage"]["prompt_tokens"].get<int>()));
  EXPECT_EQ(a["gen_ai.usage.output_tokens"]["intValue"], "8");
  EXPECT_EQ(a["gen_ai.usage.cache_read.input_tokens"]["intValue"],
            std::to_string(answer.json["usage"]["prompt_tokens_details"]["cached_tokens"].get<int>()));
  EXPECT_EQ(a["server.address"]["stringValue"], "localhost");
  EXPECT_EQ(a["server.port"]["intValue"], "80") << "Host named none";
  EXPECT_EQ(a["http.response.status_code"]["intValue"], "200");
  EXPECT_FALSE(a.contains("error.type"));
  const char* names[]{"queue", "prefill", "decode"};
  for (std::size_t i = 1; i < 4; ++i) {
    EXPECT_EQ(spans[i]["name"], names[i - 1]);
    EXPECT_EQ(spans[i]["traceId"], whole["traceId"]);
    EXPECT_EQ(spans[i]["parentSpanId"], whole["spanId"]);
    EXPECT_EQ(spans[i]["spanId"].get<std::string>().size(), 16u);
    EXPECT_GE(nanoseconds(spans[i], "endTimeUnixNano"), nanoseconds(spans[i], "startTimeUnixNano"));
    EXPECT_GE(nanoseconds(spans[i], "startTimeUnixNano"), nanoseconds(whole, "startTimeUnixNano"));
    EXPECT_LE(nanoseconds(spans[i], "endTimeUnixNano"), nanoseconds(whole, "endTimeUnixNano"));
  }
  EXPECT_EQ(dump_json(traced.collector.bodies[0]).find("parcel"), std::string::npos);
}

TEST(Trace, AStreamTellsThatItIsOneAndWhatOfItsPromptWasKept) {
  Traced traced;
  const Json ask{{"prompt", "Where is my parcel, which was to come on Monday at the latest, and who has it now?"},
                 {"max_tokens", 2},
                 {"ignore_eos", true},
                 {"temperature", 0}};
  ASSERT_EQ(traced.api->post("/v1/completions", ask).status, 200);
  Json streamed = ask;
  streamed.update({{"stream", true}, {"stream_options", {{"include_usage", true}}}});
  const test::Answer answer = traced.api->client().ask(
      "POST /v1/completions HTTP/1.1\r\nHost: [::1]:8181\r\nContent-Type: application/json\r\nContent-Length: " +
      std::to_string(dump_json(streamed).size()) + "\r\n\r\n" + dump_json(streamed));
  ASSERT_EQ(answer.status, 200);
  const auto events = TestApi::events(answer.body);
  const int cached = events.at(events.size() - 2)["usage"]["prompt_tokens_details"]["cached_tokens"].get<int>();
  EXPECT_GT(cached, 0);
  auto a = attributes(traced.spans().at(4));  // after the first and its three phases
  EXPECT_EQ(a["gen_ai.request.stream"]["boolValue"], true);
  EXPECT_EQ(a["gen_ai.usage.cache_read.input_tokens"]["intValue"], std::to_string(cached));
  EXPECT_FALSE(a.contains("gen_ai.request.choice.count")) << "one, as a rule";
  EXPECT_FALSE(a.contains("gen_ai.request.stop_sequences"));
  EXPECT_EQ(a["server.address"]["stringValue"], "::1");
  EXPECT_EQ(a["server.port"]["intValue"], "8181");
}

TEST(Trace, FailuresHaveAType) {
  Traced traced;
  traced.api->post("/v1/chat/completions", "{");
  traced.api->api().drain();
  traced.api->post("/v1/embeddings", {{"input", "x"}});
  traced.api->get("/livez");
  traced.api->get("/v1/models");
  const std::vector<Json> spans = traced.spans();
  ASSERT_EQ(spans.size(), 2u);
  EXPECT_EQ(spans[0]["name"], "chat");
  EXPECT_EQ(attributes(spans[0])["error.type"]["stringValue"], "400");
  EXPECT_FALSE(spans[0].contains("status"));
  EXPECT_FALSE(spans[0].contains("parentSpanId"));
  EXPECT_EQ(spans[1]["name"], "embeddings");
  EXPECT_EQ(attributes(spans[1])["error.type"]["stringValue"], "503");
  EXPECT_EQ(spans[1]["status"]["code"], 2);
  EXPECT_NE(spans[0]["traceId"], spans[1]["traceId"]);
}

TEST(Trace, FilesAndJobsAreNoSpans) {
  Traced traced;
  for (const char* path : {"/v1/files", "/v1/fine_tuning/jobs", "/v1/fine_tuning/jobs/a/cancel",
                           "/v1/fine_tuning/jobs/a/pause", "/v1/batches", "/v1/batches/a/cancel"})
    EXPECT_EQ(traced.api->post(path, Json::object()).status, 501) << path;
  EXPECT_EQ(traced.api->post("/v1/embeddings", {{"input", "x"}}).status, 200);
  const std::vector<Json> spans = traced.spans();
  ASSERT_EQ(spans.size(), 1u);
  EXPECT_EQ(spans[0]["name"], "embeddings tiny");
}

TEST(Trace, ANegativeSeedIsAnInt64) {
  Traced traced;
  const Json ask{{"prompt", "Hello"}, {"max_tokens", 1}, {"seed", -7}};
  ASSERT_EQ(traced.api->post("/v1/completions", ask).status, 200);
  EXPECT_EQ(attributes(traced.spans().at(0))["gen_ai.request.seed"]["intValue"], "-7");
}

TEST(Trace, WhatTheClientDoesNotSampleIsNotSent) {
  Traced traced({.ratio = 0});
  const Json ask{{"input", "x"}};
  traced.api->post("/v1/embeddings", ask);
  traced.api->post("/v1/embeddings", ask, "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00\r\n");
  traced.api->post("/v1/embeddings", ask, "traceparent: 00-0af7651916cd43dd8448eb211c80319d-b7ad6b7169203331-01\r\n");
  const std::vector<Json> spans = traced.spans();
  ASSERT_EQ(spans.size(), 1u);
  EXPECT_EQ(spans[0]["traceId"], "0af7651916cd43dd8448eb211c80319d");
}

TEST(Trace, ACollectorThatIsBusyIsAskedAgain) {
  Traced traced({}, {503, 429});
  traced.api->post("/v1/embeddings", {{"input", "x"}});
  EXPECT_EQ(traced.spans().size(), 1u);
  EXPECT_EQ(traced.collector.asked, 3);
  EXPECT_EQ(traced.exporter->exported(), 1u);
}

TEST(Trace, ACollectorThatRefusesIsNotAskedAgain) {
  Traced traced({}, {400});
  traced.api->post("/v1/embeddings", {{"input", "x"}});
  EXPECT_TRUE(traced.spans().empty());
  EXPECT_EQ(traced.collector.asked, 1);
  MetricText text(MetricText::Format::kPrometheus);
  traced.exporter->write_metrics(text);
  EXPECT_NE(std::move(text).finish().find("tailor_traces_total{outcome=\"failed\"} 1\n"), std::string::npos);
}

TEST(Trace, AFullQueueDropsAndAnAbsentCollectorDelaysNobody) {
  Traced traced({.endpoint = "http://127.0.0.1:1", .queue_requests = 2, .interval = std::chrono::hours(1)});
  for (int i = 0; i < 5; ++i) EXPECT_EQ(traced.api->post("/v1/embeddings", {{"input", "x"}}).status, 200);
  EXPECT_EQ(traced.exporter->dropped(), 3u);
  EXPECT_TRUE(traced.spans().empty());
  EXPECT_EQ(traced.exporter->exported(), 0u);
}

TEST(Trace, ParentsThatBreakARuleAreNotContinued) {
  EXPECT_TRUE(parse_traceparent("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")->sampled);
  EXPECT_FALSE(parse_traceparent("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-02")->sampled);
  EXPECT_TRUE(parse_traceparent("cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0b-more").has_value());
  for (const char* bad : {"", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0",
                          "00-0AF7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
                          "00-00000000000000000000000000000000-b7ad6b7169203331-01",
                          "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
                          "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
                          "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
                          "cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01more",
                          "00_0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"})
    EXPECT_FALSE(parse_traceparent(bad).has_value()) << bad;
}

}  // namespace
}  // namespace tailor
