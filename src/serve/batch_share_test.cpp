// What batches leave to others: places in the model, the disk, time, and how many there may be.

#include <algorithm>

#include "serve/test_batches.h"
#include "serve/test_gate.h"
#include "store/store_testing.h"

namespace tailor {
namespace {

using test::BatchApi;
using test::Gate;
using test::JsonAnswer;
using test::kCompletions;
using test::KeyedBatchApi;
using test::line;
using test::lines;
using test::TestApi;
using test::TestClient;
using namespace std::chrono_literals;
namespace fs = std::filesystem;

BatchOptions shares(std::size_t answers, std::size_t beside) {
  return {.answers = answers, .beside = beside, .input = {}, .clock = {}};
}

/// A stream of so many tokens that all of a test's batch is answered before it ends; has begun.
TestClient begin_stream(TestApi& api) {
  TestClient client = api.client();
  client.send(TestApi::post_text(
      kCompletions,
      dump_json({{"model", "tiny"}, {"prompt", "y"}, {"stream", true}, {"max_tokens", 1900}, {"ignore_eos", true}})));
  EXPECT_TRUE(client.read_through("\"text\":").has_value());
  return client;
}

TEST_F(BatchApi, BesideALiveRequestOnlyAFewAnswersAreAskedForAtATime) {
  restart(shares(8, 2));
  const std::string id = create(lines(3000, 20));
  ASSERT_TRUE(test::eventually([&] { return under_way() == 8; })) << "nobody else is there";
  {
    TestClient live = begin_stream(*api_);
    ASSERT_TRUE(test::eventually([&] { return under_way() <= 2; })) << "what was begun ends";
    const int before = answers(id);
    std::size_t most = 0;
    ASSERT_TRUE(test::eventually([&] {
      most = std::max(most, under_way());
      return answers(id) >= before + 20;
    })) << "the batch goes on";
    EXPECT_EQ(live_.count, 0) << "the live request has ended too early to tell";
    EXPECT_LE(most, 2U);
    EXPECT_GE(most, 1U);
  }
  EXPECT_TRUE(test::eventually([&] { return under_way() == 8; })) << "the client has gone";
}

TEST_F(BatchApi, ALiveRequestIsAnsweredBeforeTheBatchIs) {
  restart(shares(4, 1));
  const std::string id = create(lines(500, 30));
  wait_for_answers(id, 1);
  for (int i = 0; i < 5; ++i)
    EXPECT_EQ(api_->post(kCompletions, {{"prompt", "y"}, {"max_tokens", 4}, {"ignore_eos", true}}).status, 200);
  EXPECT_EQ(look(id)["status"], "in_progress");
  EXPECT_LT(answers(id), 500);
}

TEST_F(BatchApi, WhatOthersAskIsNotHeldUpByABatchOfAnotherModel) {
  restart(shares(4, 2));
  ModelLoadOptions load{.cache_bytes = std::uint64_t{64} << 20, .share = std::make_shared<ComputeShare>(1)};
  api_->models().put(serve_base_model(testing::tiny_llama().string(), "other", load).value());
  const std::string large = create(lines(3000, 20, "other"));
  wait_for_answers(large, 1);
  const TestClient live = begin_stream(*api_);
  wait_for(create(lines(6, 4)), "completed");
  EXPECT_EQ(live_.count, 0) << "it waited for the live request";
  EXPECT_EQ(look(large)["status"], "in_progress");
}

TEST_F(BatchApi, OfLabelsNoMoreTextsAreAskedForAtATimeThanItsShare) {
  constexpr std::size_t kLines = 10, kTexts = 16, kShare = 3;
  const auto gate = std::make_shared<Gate>();
  const Gate::Opened opened{gate};
  restart(shares(kShare, 1));
  const auto labels = test::serve_gated(api_->models(), gate);
  const std::string classify = "/v1/classify";
  std::string text;
  for (std::size_t i = 0; i < kLines; ++i)
    text += line(std::to_string(i), {{"model", "gated"}, {"input", std::vector<std::string>(kTexts, "x")}}, classify);
  const std::string id = create(text, classify);
  ASSERT_TRUE(test::eventually([&] { return under_way() == kShare && gate->most() > 0; })) << "some is being computed";
  auto live = api_->client();
  live.send(TestApi::post_text(classify, dump_json({{"model", "gated"}, {"input", "now"}})));
  ASSERT_TRUE(test::eventually([&] { return labels->batcher->waiting() % kTexts == 1; })) << "it waits";
  EXPECT_EQ(under_way(), kShare) << "more was asked for";
  gate->open(1);  // for what is being computed; the live request comes with what is computed next
  ASSERT_TRUE(test::eventually([&] { return labels->batcher->waiting() % kTexts == 0; }));
  gate->open(1);
  const auto answer = live.read_answer();
  EXPECT_EQ(answer.status, 200) << answer.body;
  EXPECT_LT(answers(id), static_cast<int>(kLines));
  gate->open(Gate::kAll);
  const Json done = wait_for(id, "completed");
  EXPECT_EQ(by_id(content(done["output_file_id"])).size(), kLines);
  EXPECT_LE(gate->most(), kShare * kTexts + 1);
}

TEST_F(BatchApi, AtAFullDiskItWaitsAndThenGoesOn) {
  BatchOptions options = shares(4, 2);
  options.retry_after = 20ms;
  restart(options);
  const std::string id = create(lines(60, 20));
  wait_for_answers(id, 1);
  {
    const FullDisk full(1);
    ASSERT_TRUE(test::eventually([&] { return gauge("tailor_batches_stalled") == 1 && under_way() == 0; }))
        << "nothing more is asked for";
    const Json now = look(id);
    EXPECT_EQ(now["status"], "in_progress");
    const auto kept = by_id(read_file(dir_.path() / "store" / "runs" / id / "output.jsonl").value());
    EXPECT_GE(static_cast<int>(kept.size()), now["request_counts"]["completed"].get<int>());
    EXPECT_LT(kept.size(), 60U);
    const std::string told = log_.all();  // of its answers or of their number, whichever came first
    EXPECT_NE(told.find(id + " waits: "), std::string::npos) << told;
    EXPECT_TRUE(told.find("output.jsonl") != std::string::npos || told.find("store.sqlite") != std::string::npos);
    EXPECT_EQ(api_->post(kCompletions, {{"prompt", "y"}, {"max_tokens", 1}}).status, 200) << "the server goes on";
  }
  const Json done = wait_for(id, "completed");
  EXPECT_EQ(by_id(content(done["output_file_id"])).size(), 60U);
  EXPECT_TRUE(done["error_file_id"].is_null());
  EXPECT_EQ(done["request_counts"], Json({{"total", 60}, {"completed", 60}, {"failed", 0}}));
  EXPECT_EQ(done["usage"]["output_tokens"], 60 * 20);
  EXPECT_EQ(gauge("tailor_batches_stalled"), 0U);
}

TEST_F(BatchApi, WithoutAPlaceForItsAnswersItWaitsForOne) {
  BatchOptions options = shares(4, 2);
  options.retry_after = 20ms;
  restart(options);
  const fs::path runs = dir_.path() / "store" / "runs";
  write_file_atomic(runs, "no directory").value();
  const std::string id = create(lines(3, 2));
  ASSERT_TRUE(test::eventually([&] { return gauge("tailor_batches_stalled") == 1; }));
  EXPECT_EQ(look(id)["status"], "validating");
  fs::remove(runs);
  EXPECT_EQ(wait_for(id, "completed")["request_counts"]["completed"], 3);
  EXPECT_EQ(gauge("tailor_batches_stalled"), 0U);
}

TEST_F(BatchApi, OneThatWaitsForItsTurnExpiresOnTime) {
  BatchOptions options = shares(1, 1);
  options.batches = 1;
  restart(options);
  const std::string first = create(lines(2000, 50));
  wait_for_answers(first, 1);
  const std::string waits = create(lines(3, 2), kCompletions, {{"completion_window", "1h"}});
  const std::string wrong = create("{}\n", kCompletions, {{"completion_window", "1h"}});
  const std::string longer = create(lines(3, 2), kCompletions, {{"completion_window", "2h"}});
  now_ += 3599;
  wait_for_answers(first, answers(first) + 1);
  EXPECT_EQ(look(waits)["status"], "validating");
  now_ += 1;
  const Json done = wait_for(waits, "expired");
  EXPECT_EQ(done["expired_at"], now_.load());
  EXPECT_TRUE(done["in_progress_at"].is_null());
  EXPECT_TRUE(done["output_file_id"].is_null());
  EXPECT_EQ(done["model"], "tiny");
  EXPECT_EQ(done["request_counts"], Json({{"total", 3}, {"completed", 0}, {"failed", 0}}));
  const auto errors = by_id(content(done["error_file_id"]));
  ASSERT_EQ(errors.size(), 3U);
  for (const auto& [id, answer] : errors) {
    EXPECT_EQ(answer["error"]["code"], "batch_expired") << id;
    EXPECT_TRUE(answer["response"].is_null());
  }
  EXPECT_EQ(wait_for(wrong, "failed")["errors"]["data"][0]["line"], 1) << "what is wrong with it is told all the same";
  EXPECT_EQ(look(longer)["status"], "validating");
  EXPECT_EQ(look(first)["status"], "in_progress");
}

TEST_F(BatchApi, OneThatWaitsForItsTurnIsCancelledAtOnce) {
  BatchOptions options = shares(1, 1);
  options.batches = 1;
  restart(options);
  const std::string first = create(lines(2000, 50));
  wait_for_answers(first, 1);
  const std::string waits = create(lines(3, 2));
  EXPECT_EQ(api_->post("/v1/batches/" + waits + "/cancel", Json::object()).json["status"], "cancelling");
  EXPECT_TRUE(wait_for(waits, "cancelled")["error_file_id"].is_null()) << "nothing of it was begun";
  EXPECT_EQ(look(first)["status"], "in_progress");
}

TEST_F(BatchApi, OneWhoseWindowEndedWhileNoServerRanAsksForNothingMore) {
  restart(shares(1, 1));
  const std::string id = create(lines(200, 50), kCompletions, {{"completion_window", "2h"}});
  wait_for_answers(id, 1);
  stop();
  now_ += 2 * 3600;
  start();
  const Json done = wait_for(id, "expired");
  const auto output = by_id(content(done["output_file_id"])), errors = by_id(content(done["error_file_id"]));
  EXPECT_GE(output.size(), 1U);
  EXPECT_EQ(output.size() + errors.size(), 200U);
  EXPECT_EQ(errors.at("199")["error"]["code"], "batch_expired");
  EXPECT_EQ(api_->engine().stats().finished, 0U);
}

TEST_F(BatchApi, OnlySoManyMayBeUnfinished) {
  server_.limits.batches = 2;
  restart(shares(1, 1));
  const std::string first = create(lines(500, 50));
  create(lines(500, 50));
  const Json body{{"input_file_id", file(lines(1, 1))}, {"endpoint", kCompletions}, {"completion_window", "24h"}};
  const JsonAnswer refused = api_->post("/v1/batches", body);
  EXPECT_EQ(refused.status, 429) << refused.json;
  EXPECT_EQ(refused.json["error"]["code"], "batch_limit_exceeded");
  EXPECT_EQ(refused.json["error"]["type"], "requests");
  ASSERT_NE(refused.headers.find("x-should-retry"), nullptr);
  EXPECT_EQ(*refused.headers.find("x-should-retry"), "false") << "clients that ask again by themselves need not";
  EXPECT_EQ(api_->get("/v1/batches").json["data"].size(), 2U);
  api_->post("/v1/batches/" + first + "/cancel", Json::object());
  wait_for(first, "cancelled");
  EXPECT_EQ(api_->post("/v1/batches", body).status, 200);
}

TEST_F(BatchApi, OneWhoseAnswersCannotBePutInPlaceFails) {
  restart(shares(1, 1));
  const std::string id = create(lines(60, 20));
  wait_for_answers(id, 1);
  fs::remove(dir_.path() / "store" / "runs" / id / "output.jsonl");
  const Json failed = wait_for(id, "failed");
  EXPECT_EQ(failed["errors"]["data"][0]["code"], "storage_error");
  EXPECT_TRUE(test::eventually([&] { return gauge("tailor_batches_active") == 0; })) << "it has left its place";
  EXPECT_EQ(gauge("tailor_batches_stalled"), 0U);
  EXPECT_NE(log_.all().find(id + " fails: cannot read"), std::string::npos) << log_.all();
}

TEST_F(KeyedBatchApi, OneKeysBatchesLeaveAPlaceToOthers) {
  BatchOptions options = shares(2, 1);
  options.batches = 2;
  restart(options);
  const CreatedApiKey mine = key(), other = key(), third = key();
  std::vector<std::string> large;
  for (int i = 0; i < 4; ++i) large.push_back(create_for(mine, lines(3000, 50)));
  ASSERT_TRUE(test::eventually([&] { return gauge("tailor_batches_active") == 2; }));
  wait_for(create_for(other, lines(3, 2)), "completed", bearer(other));
  wait_for(create_for(third, lines(3, 2)), "completed", bearer(third));
  int begun = 0;
  for (const std::string& id : large) {
    const Json status = look(id, bearer(mine))["status"];
    EXPECT_TRUE(status == "in_progress" || status == "validating") << status;
    begun += status == "in_progress" ? 1 : 0;
  }
  EXPECT_EQ(begun, 2);
}

TEST_F(KeyedBatchApi, KeysTakeTurnsWhateverEachHasWaiting) {
  constexpr int kFew = 10;
  restart(shares(1, 1));  // one request after the other
  const CreatedApiKey mine = key(), other = key();
  for (int i = 0; i < 3; ++i) create_for(mine, lines(2000, 4));
  ASSERT_TRUE(test::eventually([&] { return gauge("tailor_batches_active") == 3; }));
  wait_for(create_for(other, lines(kFew, 4)), "completed", bearer(other));
  const std::vector<std::string> keys = live_.keys();
  const auto first = std::find(keys.begin(), keys.end(), other.key.id);
  const auto last = std::find(keys.rbegin(), keys.rend(), other.key.id).base();
  EXPECT_EQ(std::count(first, last, other.key.id), kFew);
  EXPECT_EQ(std::count(first, last, mine.key.id), kFew - 1);
}

TEST_F(KeyedBatchApi, EachKeyMayHaveSoManyUnfinishedOnes) {
  server_.limits.batches = 1;
  restart(shares(1, 1));
  const CreatedApiKey mine = key(), other = key();
  EXPECT_FALSE(create_for(mine, lines(500, 50)).empty());
  EXPECT_EQ(create_for(mine, lines(1, 1)), "");
  EXPECT_FALSE(create_for(other, lines(1, 1)).empty());
}

}  // namespace
}  // namespace tailor
