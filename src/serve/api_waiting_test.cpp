// Labels, tags and vectors that wait: whose turn it is, what is refused before it is tokenised, and what is too late.

#include <gtest/gtest.h>

#include <atomic>

#include "serve/test_api.h"
#include "serve/test_gate.h"
#include "serve/test_packages.h"

namespace tailor {
namespace {

using test::Gate;
using test::JsonAnswer;
using test::TestApi;
using test::TestClient;

/// Who "X-Client" says.
class NamedDoor final : public Authenticator {
 public:
  ApiResult<Principal> check(const HttpHead& head, ApiScope /*scope*/) override {
    const std::string* name = head.headers.find("X-Client");
    Principal out;
    out.key_id = name == nullptr ? "" : *name;
    out.administers = out.key_id == "admin";
    return out;
  }
};

std::string from(const char* client) {
  return std::string("X-Client: ") + client + "\r\n";
}

TestClient classify(TestApi& api, std::size_t texts, const char* client) {
  TestClient out = api.client();
  const Json body{{"model", "gated"}, {"input", std::vector<std::string>(texts, "x")}};
  out.send(TestApi::post_text("/v1/classify", dump_json(body), from(client)));
  return out;
}

TEST(ApiWaiting, OneTextOfAKeyWaitsForNoThousandOfAnother) {
  NamedDoor door;
  TestApi api({}, {}, &door);
  const auto gate = std::make_shared<Gate>();
  const Gate::Opened opened{gate};
  const auto labels = test::serve_gated(api.models(), gate, {.batch_items = 100});
  const TestClient large = classify(api, 1000, "one");
  ASSERT_TRUE(test::eventually([&] { return gate->most() == 100 && labels->batcher->waiting() == 900; }));
  TestClient single = classify(api, 1, "other");
  ASSERT_TRUE(test::eventually([&] { return labels->batcher->waiting() == 901; }));
  gate->open(2);  // for what is being computed and for the next batch
  EXPECT_EQ(single.read_answer().status, 200);
  EXPECT_GE(labels->batcher->waiting(), 701u) << "the others go on after it";
}

TEST(ApiWaiting, WhatWaitsLongerThanARequestMayIsTooLate) {
  ApiServerOptions options;
  options.limits.request_timeout = std::chrono::seconds(0);
  TestApi api(options);
  const auto gate = std::make_shared<Gate>();
  gate->open(Gate::kAll);
  const auto labels = test::serve_gated(api.models(), gate);
  const TemporaryDirectory dir("waiting");
  test::write_tag_package(dir.path() / "tags", {0, 9, 0, 0, 0}, 0);
  test::write_span_package(dir.path() / "spans", 0, false);
  for (const char* name : {"tags", "spans"})
    api.models().put(serve_package(dir.path() / name, name, {.share = std::make_shared<ComputeShare>(1)}).value());
  const std::vector<std::pair<const char*, Json>> asked{
      {"/v1/classify", {{"model", "gated"}, {"input", "x"}}},
      {"/v1/tag", {{"model", "tags"}, {"input", "x"}}},
      {"/v1/extract", {{"model", "spans"}, {"question", "x"}, {"context", "y"}}},
      {"/v1/embeddings", {{"model", "tiny"}, {"input", "x"}}},
      {"/v1/rerank", {{"model", "tiny"}, {"query", "x"}, {"documents", {"y"}}}},
      {"/v1/chat/completions", {{"model", "gated"}, {"messages", {{{"role", "user"}, {"content", "x"}}}}}},
      {"/v1/completions", {{"model", "tiny"}, {"prompt", "x"}}}};
  for (const auto& [path, body] : asked) {
    const JsonAnswer late = api.post(path, body);
    EXPECT_EQ(late.status, 408) << path << " " << late.json;
    EXPECT_EQ(late.json["error"]["code"], "timeout") << path;
    EXPECT_NE(late.json["error"]["message"].get<std::string>().find("the request took longer than its time-out"),
              std::string::npos)
        << late.json;
  }
  EXPECT_EQ(gate->most(), 0u) << "it was computed";
  EXPECT_EQ(labels->batcher->waiting(), 0u);
}

/// Keeps what was told last.
class LastRecord final : public RequestObserver {
 public:
  void on_request(const RequestRecord& record) override {
    tokens = record.prompt_tokens;
    refused_for = record.refused_for;
    status = record.status;
  }
  std::atomic<int> status{0};  // written last
  std::size_t tokens = 0;
  WaitRefusal refused_for = WaitRefusal::kNone;
};

TEST(ApiWaiting, AFullQueueRefusesBeforeItTokenises) {
  LastRecord last;
  ApiServerOptions options;
  options.observers = {&last};
  TestApi api(options);
  const TemporaryDirectory dir("waiting");
  const BatcherOptions no_room{.queue_items = 0};
  const auto share = std::make_shared<ComputeShare>(1);
  test::write_tag_package(dir.path() / "tags", {0, 9, 0, 0, 0}, 0);
  test::write_span_package(dir.path() / "spans", 0, false);
  const auto serve = [&](const char* name, auto&& fill) {
    auto model = std::make_unique<ServedModel>();
    model->id = name;
    fill(*model);
    api.models().put(std::move(model));
  };
  serve("tags", [&](ServedModel& m) {
    m.tags = TagBackend::load(dir.path() / "tags", read_package(dir.path() / "tags").value(), share, no_room).value();
  });
  serve("spans", [&](ServedModel& m) {
    m.spans =
        SpanBackend::load(dir.path() / "spans", read_package(dir.path() / "spans").value(), share, no_room).value();
  });
  serve("vectors", [&](ServedModel& m) {
    m.embedding = std::make_shared<EmbeddingBackend>(testing::tiny_llama(), share, no_room);
  });
  std::string text = "Anna";
  for (int i = 0; i < 3000; ++i) text += " word";
  const auto talk = [](const char* model, const std::string& said) {
    return Json{{"model", model},
                {"messages", {{{"role", "system"}, {"content", said}}, {{"role", "user"}, {"content", "Who?"}}}}};
  };
  const std::vector<std::pair<const char*, Json>> asked{
      {"/v1/tag", {{"model", "tags"}, {"input", text}}},
      {"/v1/extract", {{"model", "spans"}, {"question", "Who?"}, {"context", text}}},
      {"/v1/embeddings", {{"model", "vectors"}, {"input", text}}},  // counted it would be too long
      {"/v1/rerank", {{"model", "vectors"}, {"query", "x"}, {"documents", {text}}}},
      {"/v1/chat/completions", talk("tags", text)},
      {"/v1/chat/completions", talk("spans", text)}};
  for (const auto& [path, body] : asked) {
    const JsonAnswer refused = api.post(path, body);
    EXPECT_EQ(refused.status, 503) << path << " " << refused.json;
    EXPECT_NE(refused.headers.find("Retry-After"), nullptr);
    ASSERT_TRUE(test::eventually([&] { return last.status == 503; }));
    EXPECT_EQ(last.tokens, 0u) << path << ": its tokens were counted";
    EXPECT_EQ(last.refused_for, WaitRefusal::kQueue);
    last.status = 0;
  }
}

TEST(ApiWaiting, OnlyAdministratorsGoBeforeOthers) {
  NamedDoor door;
  TestApi api({}, {}, &door);
  const auto status = [&](const std::string& fields, int priority) {
    const Json body{{"prompt", "x"}, {"max_tokens", 1}, {"priority", priority}};
    const JsonAnswer got = api.post("/v1/completions", body, fields);
    if (got.status == 403) {
      EXPECT_EQ(got.json["error"]["param"], "priority");
      EXPECT_EQ(got.json["error"]["type"], "permission_error");
    }
    const Json chat{{"messages", {{{"role", "user"}, {"content", "x"}}}}, {"max_tokens", 1}, {"priority", priority}};
    EXPECT_EQ(api.post("/v1/chat/completions", chat, fields).status, got.status);
    return got.status;
  };
  EXPECT_EQ(status(from("somebody"), -1), 403);
  EXPECT_EQ(status(from("somebody"), 0), 200);
  EXPECT_EQ(status(from("somebody"), 100), 200);
  EXPECT_EQ(status(from("admin"), -100), 200);
  EXPECT_EQ(status("", -100), 200) << "without keys";
}

}  // namespace
}  // namespace tailor
