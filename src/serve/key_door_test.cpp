// Keys, scopes and quotas as clients meet them.

#include "serve/key_door.h"

#include <gtest/gtest.h>

#include "core/files.h"
#include "serve/test_api.h"

namespace tailor {
namespace {

using test::JsonAnswer;
using test::TestApi;
using test::TestClient;
using namespace std::chrono_literals;

/// A store in a directory of its own, its door with a clock that stands, and the API behind it.
struct KeyedApi {
  TemporaryDirectory dir{"tailor-keys"};
  std::atomic<std::int64_t> now_ms{1'700'000'000'000};
  std::unique_ptr<Store> store = open();
  NullLogger log;
  std::unique_ptr<KeyDoor> door;
  std::unique_ptr<TestApi> api;

  explicit KeyedApi(bool required = false) { start(required); }
  ~KeyedApi() { stop(); }
  void start(bool required = false) {
    KeyDoorOptions options;
    options.required = required;
    options.look_every = 10ms;
    options.clock = [this] { return UnixMillis(std::chrono::milliseconds(now_ms)); };
    door = std::make_unique<KeyDoor>(*store, log, options);
    api = std::make_unique<TestApi>(ApiServerOptions{}, ModelLoadOptions{}, door.get());
  }
  void stop() {
    api.reset();
    door.reset();
  }
  std::unique_ptr<Store> open() {
    return Store::open(dir.path() / "store", {.clock = [this] { return now_ms / 1000; }}).value();
  }
  CreatedApiKey key(QuotaLimits quotas = {}, Scopes scopes = {Scope::kInfer}) {
    return store->keys().create({.name = "test", .scopes = scopes, .quotas = quotas}).value();
  }
  static std::string bearer(const CreatedApiKey& key) { return "Authorization: Bearer " + key.secret + "\r\n"; }
  JsonAnswer ask(const CreatedApiKey& key, Json more = Json::object(), const std::string& text = "Hello") {
    Json body{{"messages", {{{"role", "user"}, {"content", text}}}}, {"max_tokens", 4}, {"temperature", 0}};
    body.update(more);
    return api->post("/v1/chat/completions", body, bearer(key));
  }
};

std::string field(const JsonAnswer& answer, std::string_view name) {
  const std::string* value = answer.headers.find(name);
  return value == nullptr ? "" : *value;
}

TEST(KeyDoor, EveryRouteButTheProbesNeedsAKey) {
  KeyedApi keyed;
  keyed.key();
  int guarded = 0;
  for (const ApiRoute& route : api_routes()) {
    const std::string path = route.path, method = route.method;
    if (path == "/livez" || path == "/readyz") {
      EXPECT_EQ(keyed.api->get(path).status, 200) << path;
      continue;
    }
    if (path == "/" || path.rfind("/assets/", 0) == 0) continue;  // files of the page, which asks for the key itself
    if (route.scope == ApiScope::kNone) ADD_FAILURE() << path << " needs no key";
    std::string request = method + " " + path + " HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n";
    const auto answer = keyed.api->client().ask(request + "\r\n");
    EXPECT_EQ(answer.status, 401) << method << " " << path;
    ASSERT_NE(answer.headers.find("WWW-Authenticate"), nullptr);
    const auto wrong = keyed.api->client().ask(request + "Authorization: Bearer tlr-wrong\r\n\r\n");
    EXPECT_EQ(wrong.status, 401) << method << " " << path;
    EXPECT_EQ(wrong.body, answer.body) << "a missing and a wrong key are told alike";
    ++guarded;
  }
  EXPECT_GT(guarded, 10);
  EXPECT_EQ(keyed.api->get("/no/such/path").status, 401) << "nor does it tell which paths there are";
}

TEST(KeyDoor, OpenUntilTheFirstKeyAndNeverAgain) {
  KeyedApi keyed;
  EXPECT_FALSE(keyed.door->closed());
  EXPECT_EQ(keyed.api->get("/v1/models").status, 200);
  const CreatedApiKey key = keyed.open()->keys().create({.name = "by another process"}).value();
  ASSERT_TRUE(test::eventually([&] { return keyed.api->get("/v1/models").status == 401; }));
  EXPECT_EQ(keyed.api->get("/v1/models", KeyedApi::bearer(key)).status, 200);
  keyed.open()->keys().revoke(key.key.id).value();
  ASSERT_TRUE(test::eventually([&] { return keyed.api->get("/v1/models", KeyedApi::bearer(key)).status == 401; }));
  EXPECT_EQ(keyed.api->get("/v1/models").status, 401) << "the last key's end opens nothing";
  keyed.stop();
  keyed.start();
  EXPECT_EQ(keyed.api->get("/v1/models").status, 401) << "nor does a restart";
}

TEST(KeyDoor, ClosedWithoutKeysWhereRequired) {
  KeyedApi keyed(true);
  EXPECT_EQ(keyed.api->get("/v1/models").status, 401);
  EXPECT_EQ(keyed.api->get("/livez").status, 200);
}

TEST(KeyDoor, WhyAServerIsNotReadyIsToldToFew) {
  for (const bool required : {false, true}) {
    KeyedApi keyed(required);
    keyed.api->models().remove("tiny");
    const auto told = [&](const std::string& fields) {
      const JsonAnswer answer = keyed.api->get("/readyz", fields);
      EXPECT_EQ(answer.status, 503);
      EXPECT_EQ(answer.json["error"]["code"], "not_ready");
      EXPECT_EQ(field(answer, "Retry-After"), "1");
      return answer.json["error"]["message"].get<std::string>();
    };
    const std::string reason = "no model is loaded", nothing = "the server is not ready";
    EXPECT_EQ(told(""), required ? nothing : reason);
    const CreatedApiKey metrics = keyed.key({.requests_per_minute = 1}, {Scope::kMetrics});
    EXPECT_EQ(told(""), nothing);
    EXPECT_EQ(told(KeyedApi::bearer(keyed.key())), nothing);
    EXPECT_EQ(told("X-Api-Key: tlr-unknown\r\n"), nothing);
    EXPECT_EQ(told(KeyedApi::bearer(keyed.key({}, {Scope::kAdmin}))), reason);
    for (int i = 0; i < 3; ++i)
      EXPECT_EQ(told(KeyedApi::bearer(metrics)), reason) << "a probe takes nothing of its key";
    keyed.store->keys().revoke(metrics.key.id).value();
    EXPECT_EQ(told(KeyedApi::bearer(metrics)), nothing);
  }
}

TEST(KeyDoor, TheEndOfTheLastKeyOfAFileOpensNothing) {
  KeyedApi keyed;
  keyed.stop();
  const std::string secret = "from-a-file-0123456789";
  keyed.store->keys().set_fixed({AuthEntry::from_secret({.id = "file"}, secret).value()}).value();
  keyed.start();
  const std::string shown = "X-Api-Key: " + secret + "\r\n";
  EXPECT_EQ(keyed.api->get("/v1/models", shown).status, 200);
  keyed.store->keys().set_fixed({}).value();
  keyed.door->look();
  EXPECT_TRUE(keyed.door->closed());
  EXPECT_EQ(keyed.api->get("/v1/models", shown).status, 401);
  EXPECT_EQ(keyed.api->get("/v1/models").status, 401);
}

TEST(KeyDoor, AKeyOfAFileClosesItForGoodWhileItRuns) {
  KeyedApi keyed;
  EXPECT_EQ(keyed.api->get("/v1/models").status, 200);
  keyed.store->keys().set_fixed({AuthEntry::from_secret({.id = "file"}, "from-a-file-0123456789").value()}).value();
  EXPECT_EQ(keyed.api->get("/v1/models").status, 401);
  keyed.door->look();
  keyed.store->keys().set_fixed({}).value();
  EXPECT_EQ(keyed.api->get("/v1/models").status, 401);
}

TEST(KeyDoor, HowAKeyIsShown) {
  KeyedApi keyed;
  const CreatedApiKey key = keyed.key();
  const auto status = [&](const std::string& fields) { return keyed.api->get("/v1/models", fields).status; };
  EXPECT_EQ(status("Authorization: Bearer " + key.secret + "\r\n"), 200);
  EXPECT_EQ(status("authorization: bearer " + key.secret + "\r\n"), 200);
  EXPECT_EQ(status("X-Api-Key: " + key.secret + "\r\n"), 200);
  EXPECT_EQ(status("Authorization: Basic " + key.secret + "\r\n"), 401);
  EXPECT_EQ(status("Authorization: " + key.secret + "\r\n"), 401);
  EXPECT_EQ(status("Authorization: Bearer\r\n"), 401);
  EXPECT_EQ(status("X-Api-Key: " + key.secret + "x\r\n"), 401);
  EXPECT_EQ(status("X-Api-Key: " + key.key.id + "\r\n"), 401);
  EXPECT_EQ(status("X-Api-Key: " + key.secret + "\r\nX-Api-Key: other\r\n"), 401) << "two keys are none";
  EXPECT_EQ(keyed.api->get("/v1/models?api_key=" + key.secret).status, 401) << "addresses end up in logs";
}

TEST(KeyDoor, ExpiredAndRevokedKeysAreToldLikeUnknownOnes) {
  KeyedApi keyed;
  const JsonAnswer unknown = (keyed.key(), keyed.api->get("/v1/models", "X-Api-Key: tlr-unknown\r\n"));
  ASSERT_EQ(unknown.status, 401);
  EXPECT_EQ(unknown.json["error"]["code"], "invalid_api_key");
  const CreatedApiKey expiring =
      keyed.store->keys().create({.name = "soon", .expires_at = keyed.now_ms / 1000 + 60}).value();
  EXPECT_EQ(keyed.api->get("/v1/models", KeyedApi::bearer(expiring)).status, 200);
  keyed.now_ms += 60'000;
  EXPECT_EQ(keyed.api->get("/v1/models", KeyedApi::bearer(expiring)).json, unknown.json);
  const CreatedApiKey revoked = keyed.key();
  keyed.store->keys().revoke(revoked.key.id).value();
  EXPECT_EQ(keyed.api->get("/v1/models", KeyedApi::bearer(revoked)).json, unknown.json);
}

TEST(KeyDoor, ScopesAllowWhatTheySay) {
  KeyedApi keyed;
  const CreatedApiKey metrics = keyed.key({}, {Scope::kMetrics});
  const JsonAnswer refused = keyed.ask(metrics);
  EXPECT_EQ(refused.status, 403);
  EXPECT_EQ(refused.json["error"]["code"], "insufficient_scope");
  for (const ApiRoute& route : api_routes()) {
    if (route.scope == ApiScope::kNone) continue;
    const Scope other = route.scope == ApiScope::kInferOrAdmin ? Scope::kMetrics
                        : route.scope == ApiScope::kInfer      ? Scope::kAdmin
                                                               : Scope::kInfer;
    const std::string fields = KeyedApi::bearer(keyed.key({}, {other}));
    const auto answer =
        keyed.api->client().ask(std::string(route.method) + " " + route.path + " HTTP/1.1\r\nHost: localhost\r\n" +
                                fields + "Content-Length: 0\r\n\r\n");
    EXPECT_EQ(answer.status, 403) << route.path;
  }
  EXPECT_EQ(keyed.ask(keyed.key({}, {Scope::kMetrics, Scope::kInfer})).status, 200);
}

TEST(KeyDoor, RequestsAMinute) {
  KeyedApi keyed;
  const CreatedApiKey key = keyed.key({.requests_per_minute = 2});
  const JsonAnswer first = keyed.ask(key);
  ASSERT_EQ(first.status, 200) << first.json;
  EXPECT_EQ(field(first, "x-ratelimit-limit-requests"), "2");
  EXPECT_EQ(field(first, "x-ratelimit-remaining-requests"), "1");
  EXPECT_EQ(field(first, "x-ratelimit-reset-requests"), "30s");
  EXPECT_EQ(field(first, "x-ratelimit-limit-tokens"), "");
  EXPECT_EQ(keyed.ask(key, {{"temperature", 9}}).status, 400) << "a wrong request is one too";
  const JsonAnswer refused = keyed.ask(key);
  ASSERT_EQ(refused.status, 429);
  EXPECT_EQ(refused.json["error"]["code"], "rate_limit_exceeded");
  EXPECT_EQ(refused.json["error"]["type"], "requests");
  EXPECT_EQ(field(refused, "Retry-After"), "30");
  EXPECT_EQ(field(refused, "x-ratelimit-remaining-requests"), "0");
  EXPECT_EQ(keyed.api->get("/v1/models", KeyedApi::bearer(key)).status, 429) << "every request counts";
  keyed.now_ms += 30'000;
  EXPECT_EQ(keyed.ask(key).status, 200) << "after what Retry-After said";
}

TEST(KeyDoor, TokensAreTakenByEstimateAndSettledByUse) {
  KeyedApi keyed;
  const CreatedApiKey key = keyed.key({.tokens_per_minute = 1000});
  const JsonAnswer got = keyed.ask(key, {{"max_tokens", 40}, {"stop", {" "}}});
  ASSERT_EQ(got.status, 200) << got.json;
  const int used = got.json["usage"]["total_tokens"].get<int>();
  EXPECT_EQ(field(got, "x-ratelimit-remaining-tokens"), std::to_string(1000 - used));
  const JsonAnswer large = keyed.ask(key, {{"max_tokens", 990}});
  ASSERT_EQ(large.status, 429) << "prompt and answer together may take more than there is";
  EXPECT_EQ(large.json["error"]["type"], "tokens");
  EXPECT_EQ(field(large, "Retry-After"), "") << "it never fits";
  EXPECT_EQ(field(large, "x-should-retry"), "false");
  EXPECT_EQ(field(large, "x-ratelimit-remaining-tokens"), std::to_string(1000 - used)) << "a refusal takes nothing";
  const JsonAnswer vectors =
      keyed.api->post("/v1/embeddings", {{"input", "some words to count"}}, KeyedApi::bearer(key));
  ASSERT_EQ(vectors.status, 200) << vectors.json;
  const int more = vectors.json["usage"]["total_tokens"].get<int>();
  EXPECT_EQ(field(vectors, "x-ratelimit-remaining-tokens"), std::to_string(1000 - used - more));
  const JsonAnswer tokens = keyed.api->post("/tokenize", {{"content", "some words to count"}}, KeyedApi::bearer(key));
  EXPECT_EQ(field(tokens, "x-ratelimit-remaining-tokens"), std::to_string(1000 - used - more)) << "counting costs none";
}

TEST(KeyDoor, TokensADayOutliveTheServer) {
  KeyedApi keyed;
  const CreatedApiKey key = keyed.key({.tokens_per_day = 100});
  const JsonAnswer got = keyed.ask(key, {{"max_tokens", 40}, {"ignore_eos", true}});
  ASSERT_EQ(got.status, 200) << got.json;
  const int left = 100 - got.json["usage"]["total_tokens"].get<int>();
  EXPECT_EQ(field(got, "x-ratelimit-remaining-tokens"), std::to_string(left));
  keyed.stop();
  keyed.start();
  const JsonAnswer refused = keyed.ask(key, {{"max_tokens", left}});
  ASSERT_EQ(refused.status, 429) << refused.json;
  EXPECT_EQ(field(refused, "x-ratelimit-remaining-tokens"), std::to_string(left));
  keyed.now_ms += 86'400'000;
  EXPECT_EQ(keyed.ask(key, {{"max_tokens", left}}).status, 200) << "another day";
}

TEST(KeyDoor, WhatKeysUsedIsForgottenAfterFourHundredDays) {
  KeyedApi keyed;
  const std::int64_t today = keyed.now_ms / 86'400'000;
  const auto known = [&](std::int64_t day) { return !keyed.store->token_days().of_day(day).value().empty(); };
  keyed.stop();
  keyed.store->token_days().add({{"k", today - 401, 1}, {"k", today - 400, 1}, {"k", today - 399, 1}}).value();
  keyed.start();
  EXPECT_FALSE(known(today - 401)) << "when a server starts";
  EXPECT_TRUE(known(today - 400));
  keyed.now_ms += 86'400'000;
  keyed.stop();
  EXPECT_FALSE(known(today - 400)) << "and each day that it runs";
  EXPECT_TRUE(known(today - 399));
}

TEST(KeyDoor, APlaceAmongThoseAtATimeEndsWithTheAnswer) {
  KeyedApi keyed;
  const CreatedApiKey key = keyed.key({.max_concurrent = 1});
  for (int i = 0; i < 30; ++i)
    ASSERT_EQ(keyed.ask(key, {{"max_tokens", 1}}).status, 200) << "the one before has been read: " << i;
  TestClient client = keyed.api->client();
  const Json endless{{"prompt", "Hello"}, {"max_tokens", 1900}, {"ignore_eos", true}, {"stream", true}, {"n", 8}};
  client.send(TestApi::post_text("/v1/completions", dump_json(endless), KeyedApi::bearer(key)));
  ASSERT_TRUE(client.read_through("data: "));
  const JsonAnswer refused = keyed.ask(key);
  EXPECT_EQ(refused.status, 429);
  EXPECT_EQ(field(refused, "Retry-After"), "1");
  client.close();
  EXPECT_TRUE(test::eventually([&] {
    return keyed.ask(key, {{"max_tokens", 1}}).status == 200;
  })) << "a client that goes leaves its place";
}

TEST(KeyDoor, AKeyRevokedDuringAStreamEndsIt) {
  KeyedApi keyed;
  const CreatedApiKey key = keyed.key(), other = keyed.key();
  const Json endless{{"prompt", "Hello"}, {"max_tokens", 1900}, {"ignore_eos", true}, {"stream", true}, {"n", 8}};
  TestClient client = keyed.api->client();
  client.send(TestApi::post_text("/v1/completions", dump_json(endless), KeyedApi::bearer(key)));
  ASSERT_TRUE(client.read_through("data: "));
  keyed.open()->keys().revoke(key.key.id).value();  // by another process
  ASSERT_TRUE(client.read_through("\"code\":\"invalid_api_key\""));
  const std::string rest = *client.read_through("0\r\n\r\n");
  EXPECT_EQ(rest.find("[DONE]"), std::string::npos) << "half an answer is not told as a whole one";
  EXPECT_EQ(keyed.ask(key).status, 401);
  EXPECT_EQ(keyed.ask(other).status, 200);
  EXPECT_TRUE(test::eventually([&] { return keyed.api->engine().stats().running == 0; }))
      << "nothing goes on being computed";
}

TEST(KeyDoor, KeysDoNotShareWhatTheirPromptsLeftInTheCache) {
  KeyedApi keyed;
  const CreatedApiKey one = keyed.key(), two = keyed.key();
  const std::string prompt(200, 'a');
  const auto cached = [&](const CreatedApiKey& key) {
    return keyed.ask(key, Json::object(), prompt).json["usage"]["prompt_tokens_details"]["cached_tokens"].get<int>();
  };
  EXPECT_EQ(cached(one), 0);
  EXPECT_GT(cached(one), 0);
  EXPECT_EQ(cached(two), 0);
}

TEST(KeyDoor, RemembersWhenAKeyWasUsed) {
  KeyedApi keyed;
  const CreatedApiKey key = keyed.key();
  EXPECT_EQ(keyed.ask(key).status, 200);
  keyed.stop();
  EXPECT_EQ(keyed.store->keys().find(key.key.id).value().last_used_at, keyed.now_ms / 1000);
}

}  // namespace
}  // namespace tailor
