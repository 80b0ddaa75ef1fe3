// Who is refused for what waits: the rule alone, then the API with an engine that is behind.

#include "serve/admission.h"

#include <gtest/gtest.h>

#include "serve/test_api.h"

namespace tailor {
namespace {

AdmissionRequest of_a_key(double tokens = 100) {
  return {.named = true, .tokens = tokens, .seconds_left = 600, .most_waiting_s = 30};
}

TEST(Admission, NobodyIsRefusedWhileNothingWaits) {
  EXPECT_FALSE(refuse_to_wait({}, of_a_key(1e9)));
  EXPECT_FALSE(refuse_to_wait({.seconds = 0, .tokens_per_second = 0.001}, of_a_key(1e9)));
}

TEST(Admission, AWaitOverTheBoundIs503) {
  EXPECT_FALSE(refuse_to_wait({.seconds = 29.9, .tokens_per_second = 100}, of_a_key()));
  const auto refused = refuse_to_wait({.seconds = 30.1, .tokens_per_second = 100}, of_a_key());
  ASSERT_TRUE(refused);
  EXPECT_EQ(refused->status, 503);
  EXPECT_EQ(refused->code, "server_overloaded");
  EXPECT_EQ(refused->retry_after_s, 31);
  EXPECT_NE(refused->message.find("about 31 s, more than 30 s"), std::string::npos) << refused->message;
}

TEST(Admission, WhatAKeyHasWaitingItselfIs429) {
  const auto refused = refuse_to_wait({.seconds = 50, .own_seconds = 40, .tokens_per_second = 100}, of_a_key());
  ASSERT_TRUE(refused);
  EXPECT_EQ(refused->status, 429);
  EXPECT_EQ(refused->code, "rate_limit_exceeded");
  EXPECT_EQ(refused->retry_after_s, 40);
  // Mostly of others: not the key's doing.
  EXPECT_EQ(refuse_to_wait({.seconds = 50, .own_seconds = 20, .tokens_per_second = 100}, of_a_key())->status, 503);
  // Without keys all are one client, which is the server's whole load.
  AdmissionRequest nobody = of_a_key();
  nobody.named = false;
  EXPECT_EQ(refuse_to_wait({.seconds = 50, .own_seconds = 50, .tokens_per_second = 100}, nobody)->status, 503);
}

TEST(Admission, WhatCannotEndBeforeItsTimeOutIsNotBegun) {
  AdmissionRequest hurried = of_a_key(1000);
  hurried.seconds_left = 15;
  const auto refused = refuse_to_wait({.seconds = 10, .tokens_per_second = 100}, hurried);
  ASSERT_TRUE(refused);
  EXPECT_EQ(refused->status, 503);
  EXPECT_EQ(refused->retry_after_s, 10);
  hurried.seconds_left = 21;
  EXPECT_FALSE(refuse_to_wait({.seconds = 10, .tokens_per_second = 100}, hurried));
}

TEST(Admission, TokensAreEstimatedFromBytes) {
  EXPECT_EQ(estimated_tokens(0), 0);
  EXPECT_EQ(estimated_tokens(3000), 1000);
}

TEST(Admission, RetryAfterIsWholeSecondsOfAtLeastOne) {
  EXPECT_EQ(retry_after_s(0), 1);
  EXPECT_EQ(retry_after_s(0.2), 1);
  EXPECT_EQ(retry_after_s(7.01), 8);
  EXPECT_EQ(retry_after_s(1e9), 3600);
  const ApiError full = engine_error({ErrorCode::kUnavailable, "the queue is full", ""}, {.seconds = 12.5});
  EXPECT_EQ(full.status, 503);
  EXPECT_EQ(full.retry_after_s, 13);
  EXPECT_EQ(engine_error({ErrorCode::kInvalidArgument, "no", ""}, {.seconds = 12.5}).retry_after_s, 0);
}

/// Hears nothing.
class Deaf final : public AnswerListener {
 public:
  void on_prompt(int, const PromptRead&) override {}
  void on_text(int, std::string_view, std::span<const SampledToken>) override {}
  void on_end(int, const AnswerEnd&) override {}
  void on_error(int, const Error&) override {}
};

/// More than the engine has places for, under a client's name, until this ends.
class Flood {
 public:
  Flood(Engine& engine, const std::string& client) : engine_(engine) {
    for (int i = 0; i < 400; ++i) {
      EngineRequest request;
      request.prompt = {static_cast<std::int32_t>(100 + i), 7, 8, 9};
      request.sampling.max_tokens = 2000;
      request.sampling.ignore_end = true;
      request.client = client;
      tickets_.push_back(engine.submit(std::move(request), std::make_shared<Deaf>()).value());
    }
  }
  Flood(const Flood&) = delete;
  Flood& operator=(const Flood&) = delete;
  ~Flood() { end(); }
  bool is_felt_by(const std::string& client) const {
    return test::eventually([&] { return engine_.expected_wait(client, 0, 0, false).seconds > 0; });
  }
  void end() {
    for (const auto& ticket : tickets_) ticket->cancel();
  }

 private:
  Engine& engine_;
  std::vector<std::shared_ptr<EngineTicket>> tickets_;
};

TEST(Admission, AnOverloadedServerRefusesBeforeItTokenises) {
  std::unique_ptr<ServerMetrics> metrics;
  ModelLoadOptions load;
  load.queue.waiting_time = std::chrono::milliseconds(1);
  test::TestApi api({}, load, nullptr, &metrics);
  const Json ask{{"prompt", "Hello"}, {"max_tokens", 2}};
  EXPECT_EQ(api.post("/v1/completions", ask).status, 200);
  Flood flood(api.engine(), "");
  ASSERT_TRUE(flood.is_felt_by(""));
  const auto refused = api.post("/v1/completions", ask);
  EXPECT_EQ(refused.status, 503);
  EXPECT_EQ(refused.json["error"]["code"], "server_overloaded");
  ASSERT_NE(refused.headers.find("Retry-After"), nullptr);
  EXPECT_GE(std::stoi(*refused.headers.find("Retry-After")), 1);
  EXPECT_EQ(
      api.post("/v1/chat/completions", {{"messages", {{{"role", "user"}, {"content", "Hello"}}}}, {"stream", true}})
          .status,
      503);
  std::string long_text;
  for (int i = 0; i < 4000; ++i) long_text += " word";
  EXPECT_EQ(api.post("/v1/completions", {{"prompt", long_text}}).status, 503) << "nobody counted its tokens";
  const Json schema{{"type", "object"}, {"properties", {{"a", {{"type", "string"}}}}}};
  EXPECT_EQ(api.post("/v1/completions", {{"prompt", "Hello"}, {"json_schema", schema}}).status, 503);
  EXPECT_EQ(api.models().find("tiny")->text->constraints().cached(), 0) << "nobody compiled its grammar";
  EXPECT_EQ(api.post("/v1/completions", {{"prompt", "Hello"}, {"n", "many"}}).status, 400)
      << "what is wrong is told first";
  EXPECT_NE(metrics->text(MetricText::Format::kPrometheus).find("tailor_waiting_refused_total{reason=\"server\"} 4"),
            std::string::npos);
  flood.end();
  EXPECT_TRUE(test::eventually([&] { return api.post("/v1/completions", ask).status == 200; }));
}

TEST(Admission, AFullQueueTellsWhenToComeBack) {
  std::unique_ptr<ServerMetrics> metrics;
  ModelLoadOptions load;
  load.queue.requests = 400;
  load.queue.waiting_time = std::chrono::hours(24);
  ApiServerOptions options;
  options.limits.request_timeout = std::chrono::seconds(2);
  test::TestApi api(options, load, nullptr, &metrics);
  const Flood flood(api.engine(), "");
  std::vector<std::shared_ptr<EngineTicket>> more;
  const auto fill = [&] {
    for (;;) {
      EngineRequest request;
      request.prompt = {1, 2, 3};
      request.sampling.max_tokens = 2000;
      request.sampling.ignore_end = true;
      auto ticket = api.engine().submit(std::move(request), std::make_shared<Deaf>());
      if (!ticket.has_value()) return;
      more.push_back(*ticket);
    }
  };
  // Until the lanes have all they take; before the others in the queue, so that it is not refused for its wait.
  test::JsonAnswer refused;
  ASSERT_TRUE(test::eventually([&] {
    fill();
    refused = api.post("/v1/completions", {{"prompt", "Hello"}, {"max_tokens", 2}, {"priority", -1}});
    return refused.status == 503;
  })) << refused.json;
  EXPECT_NE(refused.json["error"]["message"].get<std::string>().find("the queue is full"), std::string::npos)
      << refused.json;
  ASSERT_NE(refused.headers.find("Retry-After"), nullptr);
  EXPECT_GE(std::stoi(*refused.headers.find("Retry-After")), 1);
  EXPECT_NE(metrics->text(MetricText::Format::kPrometheus).find("tailor_waiting_refused_total{reason=\"queue\"} 1"),
            std::string::npos);
  for (const auto& ticket : more) ticket->cancel();
}

}  // namespace
}  // namespace tailor
