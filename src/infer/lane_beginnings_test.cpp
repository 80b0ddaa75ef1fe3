#include "infer/lane_beginnings.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <deque>

#include "core/rng.h"
#include "infer/test_little_memory.h"
#include "infer/test_models.h"

namespace tailor {
namespace {

TokenList some_tokens(std::size_t n, std::uint64_t seed) {
  Rng rng(seed);
  TokenList tokens(n);
  for (std::int32_t& t : tokens) t = static_cast<std::int32_t>(20 + rng.below(40000));
  return tokens;
}

/// `common` tokens that all have, then others.
TokenList prompt(std::size_t common, std::size_t own, std::uint64_t seed) {
  TokenList tokens = some_tokens(common, 1);
  const TokenList rest = some_tokens(own, 100 + seed);
  tokens.insert(tokens.end(), rest.begin(), rest.end());
  return tokens;
}

class LaneBeginningsTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() { model_ = LoadedModel::load(testing::tiny_llama(), {}).value(); }
  static void TearDownTestSuite() { model_.reset(); }

  /// A lane's memory and beginnings, without the lane: the test is its thread.
  struct Home {
    Home(SharedBeginnings& shared, std::size_t cells)
        : memory(model_, {.sequences = 8, .first_cells = cells, .max_cells = cells, .batch = 1024, .f32_cache = true}),
          beginnings(shared, memory) {
      memory.open().value();
      memory.set_threads(1);
    }
    LaneMemory memory;
    LaneBeginnings beginnings;
  };

  EngineJob& job(TokenList tokens, const std::string& space = "s") {
    EngineRequest request;
    request.prompt = tokens;
    EngineJob& out = jobs_.emplace_back();
    out.request = std::make_shared<const EngineRequest>(std::move(request));
    out.adapter = &none_;
    out.space = space;
    out.tokens = std::move(tokens);
    return out;
  }
  /// As a lane's steps do: all tokens below `end`. What the last one says comes next.
  static std::vector<float> compute(Home& home, EngineJob& job, std::size_t end) {
    const std::size_t count = end - job.computed;
    EXPECT_TRUE(home.beginnings.make_room(count).value());
    DecodeBatch batch;
    int last = 0;
    for (std::size_t i = 0; i < count; ++i)
      last = batch.add(job.tokens[job.computed + i], static_cast<std::int32_t>(job.sequence.cells.size() + i),
                       {job.sequence.id, job.sequence.id + 1}, i + 1 == count);
    home.memory.decode(batch).value();
    home.memory.extend(job.sequence, count);
    job.computed = end;
    const float* logits = llama_get_logits_ith(home.memory.context(), last);
    return {logits, logits + model_->vocabulary()};
  }
  static std::vector<float> finish(Home& home, EngineJob& job) { return compute(home, job, job.tokens.size()); }
  /// The same without any beginning.
  void expect_as_alone(const std::vector<float>& logits, const TokenList& tokens) {
    std::mutex mutex;
    std::condition_variable changed;
    SharedBeginnings nothing(mutex, changed, 0);
    Home home(nothing, 1024);
    EngineJob& alone = job(tokens);
    home.beginnings.begin(alone).value();
    const std::vector<float> expected = finish(home, alone);
    ASSERT_EQ(logits.size(), expected.size());
    for (std::size_t i = 0; i < expected.size(); ++i) ASSERT_NEAR(logits[i], expected[i], 1e-3) << i;
  }
  static bool mail(const Home& home) { return home.beginnings.has_mail(); }
  static void take(Home& home) {
    home.beginnings.collect();
    home.beginnings.take_deliveries([](EngineJob&, const Error& error) { ADD_FAILURE() << error.message; });
    home.beginnings.serve_orders();
  }

  inline static std::shared_ptr<const LoadedModel> model_;
  std::mutex mutex_;
  std::condition_variable changed_;
  SharedBeginnings shared_{mutex_, changed_, std::uint64_t{64} << 20};
  Home one_{shared_, 1024}, two_{shared_, 1024};
  EngineAdapter none_;
  std::deque<EngineJob> jobs_;
};

TEST_F(LaneBeginningsTest, TakesWhatAnotherAnswerHasComputed) {
  EngineJob &first = job(prompt(100, 20, 1)), &second = job(prompt(100, 30, 2));
  one_.beginnings.begin(first).value();
  EXPECT_EQ(first.computed, 0U);
  finish(one_, first);
  one_.beginnings.begin(second).value();
  EXPECT_FALSE(second.waits());
  EXPECT_EQ(second.computed, 100U);
  EXPECT_EQ(second.cached, 100U);
  EXPECT_EQ(one_.memory.used(), 120U) << "shared, not copied";
  expect_as_alone(finish(one_, second), second.tokens);
}

TEST_F(LaneBeginningsTest, WaitsForWhatIsBeingComputed) {
  EngineJob &first = job(prompt(100, 20, 1)), &second = job(prompt(100, 30, 2));
  one_.beginnings.begin(first).value();
  one_.beginnings.begin(second).value();
  EXPECT_TRUE(second.waits());
  EXPECT_FALSE(one_.beginnings.may_go_on(second));
  compute(one_, first, 60);
  one_.beginnings.publish(first);
  one_.beginnings.look_again(second).value();
  EXPECT_TRUE(second.waits());
  finish(one_, first);
  one_.beginnings.publish(first);
  EXPECT_TRUE(one_.beginnings.may_go_on(second));
  one_.beginnings.look_again(second).value();
  EXPECT_FALSE(second.waits());
  EXPECT_EQ(second.computed, 100U);
  expect_as_alone(finish(one_, second), second.tokens);
}

TEST_F(LaneBeginningsTest, BeginsAnewWhereWhatItWaitsForIsDropped) {
  EngineJob &first = job(prompt(100, 20, 1)), &second = job(prompt(100, 30, 2)), &third = job(prompt(100, 40, 3));
  for (EngineJob* each : {&first, &second, &third}) one_.beginnings.begin(*each).value();
  compute(one_, first, 60);
  one_.beginnings.drop(first);
  EXPECT_TRUE(one_.beginnings.may_go_on(second));
  one_.beginnings.look_again(second).value();
  EXPECT_FALSE(second.waits());
  EXPECT_EQ(second.computed, 0U);
  one_.beginnings.look_again(third).value();
  EXPECT_TRUE(third.waits()) << "for the second now";
  expect_as_alone(finish(one_, second), second.tokens);
  one_.beginnings.look_again(third).value();
  EXPECT_EQ(third.computed, 100U);
}

TEST_F(LaneBeginningsTest, AnotherLaneSendsWhatItHas) {
  EngineJob &first = job(prompt(200, 20, 1)), &second = job(prompt(200, 30, 2));
  one_.beginnings.begin(first).value();
  finish(one_, first);
  one_.beginnings.keep(first);
  two_.beginnings.begin(second).value();
  EXPECT_TRUE(second.importing);
  EXPECT_FALSE(two_.beginnings.may_go_on(second));
  ASSERT_TRUE(mail(one_));
  take(one_);
  ASSERT_TRUE(mail(two_));
  take(two_);
  EXPECT_FALSE(second.waits());
  EXPECT_EQ(second.computed, 200U);
  expect_as_alone(finish(two_, second), second.tokens);
}

TEST_F(LaneBeginningsTest, AnotherLaneSendsItOnceItIsComputed) {
  EngineJob &first = job(prompt(200, 20, 1)), &second = job(prompt(200, 30, 2));
  one_.beginnings.begin(first).value();
  two_.beginnings.begin(second).value();
  compute(one_, first, 150);
  take(one_);
  EXPECT_FALSE(mail(two_));
  finish(one_, first);
  take(one_);
  take(two_);
  EXPECT_EQ(second.computed, 200U);
}

TEST_F(LaneBeginningsTest, AnotherLaneTellsThatNothingComes) {
  EngineJob &first = job(prompt(200, 20, 1)), &second = job(prompt(200, 30, 2));
  one_.beginnings.begin(first).value();
  two_.beginnings.begin(second).value();
  take(one_);
  one_.beginnings.drop(first);
  take(one_);
  ASSERT_TRUE(mail(two_));
  take(two_);
  EXPECT_FALSE(second.waits());
  EXPECT_EQ(second.computed, 0U);
  expect_as_alone(finish(two_, second), second.tokens);
}

/// Else an answer in the other lane would wait for ever: a lane without answers sleeps.
TEST_F(LaneBeginningsTest, ALaneThatFailedTellsThoseThatWait) {
  EngineJob &first = job(prompt(200, 20, 1)), &second = job(prompt(200, 30, 2));
  one_.beginnings.begin(first).value();
  two_.beginnings.begin(second).value();
  take(one_);
  EXPECT_FALSE(mail(two_));
  one_.beginnings.drop(first);
  one_.beginnings.give_up();
  ASSERT_TRUE(mail(two_));
  take(two_);
  EXPECT_FALSE(second.waits());
}

/// It may have gone, or begun anew elsewhere.
TEST_F(LaneBeginningsTest, WhatNobodyWaitsForAnyMoreIsThrownAway) {
  EngineJob &first = job(prompt(200, 20, 1)), &second = job(prompt(200, 30, 2));
  one_.beginnings.begin(first).value();
  finish(one_, first);
  two_.beginnings.begin(second).value();
  two_.beginnings.drop(second);
  take(one_);
  take(two_);
  EXPECT_EQ(two_.memory.used(), 0U);
  EXPECT_FALSE(mail(two_));
}

TEST_F(LaneBeginningsTest, RoomIsMadeOfWhatIsKeptWhichStaysAsBytes) {
  EngineJob &first = job(prompt(600, 20, 1)), &second = job(prompt(600, 30, 2));
  one_.beginnings.begin(first).value();
  finish(one_, first);
  one_.beginnings.keep(first);
  EXPECT_EQ(one_.memory.used(), 620U);
  EXPECT_EQ(shared_.kept.bytes(), 0U);
  EXPECT_TRUE(one_.beginnings.make_room(1000).value());
  EXPECT_EQ(one_.memory.used(), 0U);
  EXPECT_GT(shared_.kept.bytes(), 0U);
  EXPECT_FALSE(one_.beginnings.make_room(1025).value());
  one_.beginnings.begin(second).value();
  EXPECT_EQ(second.computed, 600U);
  expect_as_alone(finish(one_, second), second.tokens);
}

TEST_F(LaneBeginningsTest, WhatCannotBeSavedIsDropped) {
  Home home(shared_, 4096);
  EngineJob &first = job(prompt(3980, 20, 1)), &second = job(prompt(100, 3900, 2));
  home.beginnings.begin(first).value();
  for (std::size_t end = 1000; end <= 4000; end += 1000) compute(home, first, end);
  home.beginnings.keep(first);
  {
    const testing::LittleMemory little(std::uint64_t{1} << 20);  // half of what it holds
    EXPECT_TRUE(home.beginnings.make_room(4096).value());
  }
  EXPECT_EQ(home.memory.used(), 0U);
  EXPECT_EQ(shared_.kept.bytes(), 0U);
  home.beginnings.begin(second).value();
  EXPECT_EQ(second.computed, 0U);
  for (std::size_t end = 1000; end <= 4000; end += 1000) compute(home, second, end);  // all cells are free again
  home.beginnings.drop(second);
}

TEST_F(LaneBeginningsTest, WhatCannotBeSavedForAnotherLaneIsComputedThere) {
  Home home(shared_, 4096);
  EngineJob &first = job(prompt(3980, 20, 1)), &second = job(prompt(200, 30, 2)), &third = job(prompt(3980, 30, 3));
  home.beginnings.begin(first).value();
  for (std::size_t end = 1000; end <= 4000; end += 1000) compute(home, first, end);
  two_.beginnings.begin(third).value();
  EXPECT_TRUE(third.importing);
  {
    const testing::LittleMemory little(std::uint64_t{1} << 20);
    take(home);
  }
  ASSERT_TRUE(mail(two_));
  take(two_);
  EXPECT_FALSE(third.waits());
  EXPECT_EQ(third.computed, 0U);
  two_.beginnings.drop(third);
  two_.beginnings.begin(second).value();  // what is small is sent later
  take(home);
  take(two_);
  EXPECT_EQ(second.computed, 200U);
  expect_as_alone(finish(two_, second), second.tokens);
}

TEST_F(LaneBeginningsTest, NothingIsKeptOfASpaceThatIsGone) {
  shared_.gone = [](const std::string& space) { return space == "gone"; };
  for (const char* space : {"gone", "s"}) {
    EngineJob& each = job(prompt(600, 20, 1), space);
    one_.beginnings.begin(each).value();
    finish(one_, each);
    one_.beginnings.keep(each);
    EXPECT_TRUE(one_.beginnings.make_room(1000).value());
    EXPECT_EQ(one_.memory.used(), 0U);
    EXPECT_EQ(shared_.kept.bytes() > 0, space == std::string("s"));
  }
}

TEST_F(LaneBeginningsTest, SpacesShareNothing) {
  EngineJob &first = job(prompt(100, 20, 1)), &second = job(prompt(100, 20, 1), "another");
  one_.beginnings.begin(first).value();
  finish(one_, first);
  one_.beginnings.begin(second).value();
  EXPECT_EQ(second.computed, 0U);
  EXPECT_FALSE(second.waits());
}

/// Answers that end anywhere, as clients leave them: what is kept is bounded, and nothing else stays.
TEST_F(LaneBeginningsTest, AnswersThatEndAnywhereLeaveNothing) {
  Rng rng(3);
  std::vector<std::pair<Home*, EngineJob*>> running;
  std::size_t ended = 0;
  for (std::uint64_t round = 0; ended < 1500; ++round) {
    Home& home = rng.below(2) == 0 ? one_ : two_;
    const auto here = std::count_if(running.begin(), running.end(), [&](const auto& r) { return r.first == &home; });
    if (here < 4) {
      running.emplace_back(&home, &job(prompt(20 + 40 * rng.below(3), 5 + rng.below(100), rng.below(20))));
      home.beginnings.begin(*running.back().second).value();
    }
    for (auto& [lane, each] : running) {
      lane->beginnings.look_again(*each).value();
      if (each->waits() || each->computed == each->tokens.size()) continue;
      compute(*lane, *each, std::min(each->tokens.size(), each->computed + 1 + rng.below(60)));
    }
    for (Home* lane : {&one_, &two_}) take(*lane);
    std::erase_if(running, [&](const auto& r) {
      const auto& [lane, each] = r;
      const bool complete = each->computed == each->tokens.size();
      if (!complete && rng.below(4) != 0) return false;
      if (complete)
        lane->beginnings.keep(*each);
      else
        lane->beginnings.drop(*each);
      ++ended;
      return true;
    });
    ASSERT_LE(shared_.entries.size(), 16U) << "as many as there are sequences";
    ASSERT_EQ(shared_.tree.size(), shared_.entries.size());
  }
  for (const auto& [lane, each] : running) lane->beginnings.drop(*each);
  for (Home* lane : {&one_, &two_}) {
    lane->beginnings.give_up();
    EXPECT_EQ(lane->memory.used(), 0U);
  }
  EXPECT_EQ(shared_.tree.size(), 0U);
  EXPECT_TRUE(shared_.entries.empty());
}

}  // namespace
}  // namespace tailor
