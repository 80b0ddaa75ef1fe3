// The borders at which later parts join (routing and providers, guards, drift, the widget, clusters), each with a
// double in its place.

#include "serve/background_seat.h"
#include "serve/drift_monitor.h"
#include "serve/guard.h"
#include "serve/model_router.h"
#include "serve/test_batches.h"
#include "serve/test_packages.h"

namespace tailor {
namespace {

using test::BatchApi;
using test::JsonAnswer;
using test::lines;
using test::TestApi;

Json chat(const std::string& text, int tokens = 4) {
  return {{"messages", {{{"role", "user"}, {"content", text}}}},
          {"max_tokens", tokens},
          {"temperature", 0},
          {"ignore_eos", true}};
}

/// Sends requests that name "fastest" to one model, and remembers what it was asked.
class OneRoute final : public ModelRouter {
 public:
  explicit OneRoute(ModelRegistry& models) : models_(models) {}
  ApiResult<ServedModelPtr> choose(const RouteQuestion& question) override {
    asked.emplace_back(question.asked);
    paths.push_back(question.call.request.head.path);
    if (question.asked == "fastest" && question.body.contains("messages")) return models_.find("tiny");
    return ApiError{404, "invalid_request_error", "model_not_found", "no route", "model"};
  }
  std::vector<std::string> asked, paths;

 private:
  ModelRegistry& models_;
};

TEST(Seams, ARouterChoosesTheModel) {
  TestApi api;
  OneRoute router(api.models());
  api.api().services().router = &router;
  Json ask = chat("Hi");
  ask["model"] = "fastest";
  const JsonAnswer answer = api.post("/v1/chat/completions", ask);
  EXPECT_EQ(answer.status, 200) << answer.json;
  EXPECT_EQ(answer.json["model"], "tiny");
  EXPECT_EQ(answer.headers.find("X-Ignored-Params"), nullptr);
  ask["model"] = "tiny";
  EXPECT_EQ(api.post("/v1/chat/completions", ask).json["error"]["message"], "no route");
  EXPECT_EQ(api.post("/v1/completions", {{"prompt", "x"}}).status, 404);
  EXPECT_EQ(router.asked, (std::vector<std::string>{"fastest", "tiny", ""}));
  EXPECT_EQ(router.paths.back(), "/v1/completions");
}

/// Tells what it was asked, and refuses what is too much for it.
class Echo final : public ModelProvider {
 public:
  ApiFailure answer(const ApiCallPtr& call, const ServedModelPtr& model, const Json& body) const override {
    if (body.contains("tools")) return ApiError::invalid("tools", "not here", "unsupported_parameter");
    call->answer(Json{{"model", model->id}, {"echo", body}});
    return std::nullopt;
  }
};

TEST(Seams, AProviderAnswersWholeRequests) {
  std::unique_ptr<ServerMetrics> metrics;
  TestApi api({}, {}, nullptr, &metrics);
  auto far = std::make_unique<ServedModel>();
  far->id = "far";
  far->provider = std::make_shared<Echo>();
  api.models().put(std::move(far));
  const Json asks[] = {{{"model", "far"}, {"messages", "any"}},
                       {{"model", "far"}, {"prompt", 7}},
                       {{"model", "far"}, {"input", "x"}},
                       {{"model", "far"}, {"query", "x"}}};
  const std::pair<const char*, const Json&> requests[] = {{"/v1/chat/completions", asks[0]},
                                                          {"/v1/completions", asks[1]},
                                                          {"/v1/embeddings", asks[2]},
                                                          {"/v1/classify", asks[2]},
                                                          {"/v1/tag", asks[2]},
                                                          {"/v1/extract", asks[3]},
                                                          {"/v1/rerank", asks[3]}};
  for (const auto& [path, ask] : requests) {
    const JsonAnswer answer = api.post(path, ask);
    EXPECT_EQ(answer.status, 200) << path << answer.json;
    EXPECT_EQ(answer.json["echo"], ask) << path;
  }
  Json tools = asks[0];
  tools["tools"] = Json::array();
  EXPECT_EQ(api.post("/v1/chat/completions", tools).json["error"]["param"], "tools");
  const std::string metered = api.client().ask("GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n").body;
  EXPECT_NE(metered.find("tailor_requests_total{model=\"far\",status=\"2xx\"} 7"), std::string::npos);
}

/// Lets nothing in that says "forbidden", hides "secret", and ends answers after some characters, of which it holds
/// back the last two until it knows more.
class Strict final : public Guard {
 public:
  explicit Strict(std::size_t most) : most_(most) {}
  ApiFailure check(const ApiCall&, const ServedModel&, Json& body) override {
    if (body.dump().find("forbidden") != std::string::npos)
      return ApiError::invalid("", "this may not be asked", "content_filter");
    if (body.contains("prompt") && body["prompt"] == "secret") body["prompt"] = "******";
    return std::nullopt;
  }
  std::unique_ptr<AnswerFilter> filter(const ApiCall&, const ServedModel&) override {
    return std::make_unique<Short>(most_);
  }

 private:
  class Short final : public AnswerFilter {
   public:
    explicit Short(std::size_t most) : most_(most) {}
    Passed pass(std::string_view piece) override {
      held_ += piece;
      if (told_ + held_.size() >= most_) return {tell(most_ - told_), true};
      return {tell(held_.size() - std::min<std::size_t>(2, held_.size())), false};
    }
    Passed finish() override { return {tell(held_.size()), false}; }

   private:
    std::string tell(std::size_t count) {
      std::string out = held_.substr(0, count);
      held_.erase(0, count);
      told_ += out.size();
      return out;
    }
    std::size_t most_, told_ = 0;
    std::string held_;
  };
  std::size_t most_;
};

TEST(Seams, AGuardSeesRequestsBeforeAnythingIsComputed) {
  TestApi api;
  Strict guard(1000);
  api.api().services().guard = &guard;
  const JsonAnswer refused = api.post("/v1/chat/completions", chat("forbidden"));
  EXPECT_EQ(refused.status, 400);
  EXPECT_EQ(refused.json["error"]["code"], "content_filter");
  EXPECT_EQ(api.post("/v1/embeddings", {{"input", {"fine", "forbidden"}}}).status, 400);
  EXPECT_EQ(api.engine().stats().computed_tokens, 0u);
  const JsonAnswer masked = api.post("/v1/completions", {{"prompt", "secret"}, {"echo", true}, {"max_tokens", 0}});
  EXPECT_EQ(masked.json["choices"][0]["text"], "******") << masked.json;
}

TEST(Seams, AGuardFiltersAnswers) {
  TestApi api;
  const std::string whole =
      api.post("/v1/chat/completions", chat("Hi", 24)).json["choices"][0]["message"]["content"].get<std::string>();
  ASSERT_GT(whole.size(), 12u);
  {
    Strict guard(1000);
    api.api().services().guard = &guard;
    const Json answer = api.post("/v1/chat/completions", chat("Hi", 24)).json["choices"][0];
    EXPECT_EQ(answer["message"]["content"], whole) << "what was held back comes in the end";
    EXPECT_EQ(answer["finish_reason"], "length");
  }
  Strict guard(10);
  api.api().services().guard = &guard;
  Json ask = chat("Hi", 24);
  ask["logprobs"] = true;
  const JsonAnswer answer = api.post("/v1/chat/completions", ask);
  EXPECT_EQ(answer.json["choices"][0]["message"]["content"], whole.substr(0, 10));
  EXPECT_EQ(answer.json["choices"][0]["finish_reason"], "content_filter");
  EXPECT_TRUE(answer.json["choices"][0]["logprobs"].is_null());
  EXPECT_EQ(*answer.headers.find("X-Ignored-Params"), "logprobs");
  std::string told;
  Json last;
  for (const Json& event : api.stream("/v1/chat/completions", chat("Hi", 24))) {
    if (event == "[DONE]") continue;
    const Json& choice = event["choices"][0];
    told += choice["delta"].value("content", "");
    last = choice["finish_reason"];
  }
  EXPECT_EQ(told, whole.substr(0, 10));
  EXPECT_EQ(last, "content_filter");
  api.api().services().guard = nullptr;
}

class Collected final : public DriftMonitor {
 public:
  void on_classified(const ServedModel& model, std::span<const std::string> texts, const Json& answers) override {
    for (std::size_t i = 0; i < texts.size(); ++i) seen.emplace_back(model.id + ": " + texts[i], answers[i]["label"]);
  }
  std::vector<std::pair<std::string, Json>> seen;
};

TEST(Seams, WhatIsClassifiedIsSeenByTheDriftMonitor) {
  TemporaryDirectory dir("drift");
  test::write_neighbours_package(dir.path() / "p", true);
  TestApi api;
  api.models().put(serve_package(dir.path() / "p", "intents", {.share = std::make_shared<ComputeShare>(1)}).value());
  Collected drift;
  api.api().services().drift = &drift;
  const JsonAnswer answer = api.post("/v1/classify", {{"model", "intents"}, {"input", {"May I see it?", "How much?"}}});
  ASSERT_EQ(answer.status, 200) << answer.json;
  Json by_chat = chat("Broken!");
  by_chat["model"] = "intents";
  const Json said = api.post("/v1/chat/completions", by_chat).json["choices"][0]["message"]["content"];
  ASSERT_EQ(drift.seen.size(), 3u);
  EXPECT_EQ(drift.seen[0], (std::pair<std::string, Json>("intents: May I see it?", answer.json["data"][0]["label"])));
  EXPECT_EQ(drift.seen[1], (std::pair<std::string, Json>("intents: How much?", answer.json["data"][1]["label"])));
  EXPECT_EQ(drift.seen[2], (std::pair<std::string, Json>("intents: Broken!", said)));
}

class OneShop final : public OriginPolicy {
 public:
  bool allows(std::string_view origin) const override { return origin == "https://shop.example"; }
};

TEST(Seams, AnOriginPolicyLetsOtherPagesIn) {
  OneShop shop;
  TestApi api({.origins = &shop});
  const std::string ours = "Origin: https://shop.example\r\n", theirs = "Origin: https://evil.example\r\n";
  const auto preflight = [&](const std::string& origin) {
    return api.client().ask("OPTIONS /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n" + origin +
                            "Access-Control-Request-Method: POST\r\n\r\n");
  };
  const auto reader = [](const HttpHeaders& headers) {
    const std::string* field = headers.find("Access-Control-Allow-Origin");
    return field != nullptr ? *field : std::string();
  };
  const test::Answer asked = preflight(ours);
  EXPECT_EQ(asked.status, 204);
  EXPECT_EQ(reader(asked.headers), "https://shop.example");
  EXPECT_NE(asked.headers.find("X-Request-Id"), nullptr);
  EXPECT_EQ(*asked.headers.find("Access-Control-Allow-Headers"), "Authorization, Content-Type, X-Request-Id");
  EXPECT_EQ(preflight(theirs).status, 405);
  EXPECT_EQ(reader(preflight(theirs).headers), "");
  Json streamed = chat("Hi");
  streamed["stream"] = true;
  for (const auto& [origin, readable] :
       {std::pair(ours, true), std::pair(theirs, false), std::pair(ours + ours, false)}) {
    const std::string expected = readable ? "https://shop.example" : "";
    EXPECT_EQ(reader(api.get("/v1/models", origin).headers), expected);
    EXPECT_EQ(reader(api.post("/v1/chat/completions", chat("Hi"), origin).headers), expected);
    EXPECT_EQ(reader(api.post("/v1/chat/completions", streamed, origin).headers), expected);
    EXPECT_EQ(reader(api.post("/v1/chat/completions", Json::object(), origin).headers), expected) << "an error";
    EXPECT_EQ(reader(api.get("/v2/nothing", origin).headers), expected) << "a refusal";
    const std::string long_body = "Content-Type: application/json\r\nContent-Length: 99999999\r\n\r\n";
    const std::string head = "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n" + origin + long_body;
    EXPECT_EQ(reader(api.client().ask(head).headers), expected) << "a body that is refused";
  }
}

/// A seat that is given when the test says so.
class Given final : public BackgroundSeat {
 public:
  bool holds(std::string_view work) override {
    if (work == "batches") ++asked;
    return given;
  }
  std::atomic<bool> given{false};
  std::atomic<int> asked{0};
};

TEST_F(BatchApi, AnotherServersBatchesAreLeftToIt) {
  Given seat;
  BatchOptions options;
  options.seat = &seat;
  options.clock = [this] { return now_.load(); };
  options.look_every = std::chrono::milliseconds(1);
  runner_ = std::make_unique<BatchRunner>(api_->api().services(), open_, api_->api().observers(), options);
  api_->api().services().batches = runner_.get();
  const std::string id = create(lines(2, 2));
  const int before = seat.asked;
  EXPECT_TRUE(test::eventually([&] { return seat.asked > before + 3; }));
  EXPECT_EQ(look(id)["status"], "validating");
  seat.given = true;
  EXPECT_EQ(wait_for(id, "completed")["request_counts"]["completed"], 2);
  runner_.reset();
  api_->api().services().batches = nullptr;
}

}  // namespace
}  // namespace tailor
