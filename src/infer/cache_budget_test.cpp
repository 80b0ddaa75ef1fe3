// One budget for the keys and values of several engines: who gets how much, and that the sum is kept.

#include "infer/cache_budget.h"

#include <gtest/gtest.h>

#include <future>
#include <optional>
#include <thread>

#include "infer/engine.h"
#include "infer/test_models.h"

namespace tailor {
namespace {

using Parts = std::vector<std::uint64_t>;

TEST(CacheBudget, EachGetsAsMuchAsTheOthersWithinItsNeeds) {
  EXPECT_EQ(shared_fairly(90, {{1, 1000}, {1, 1000}, {1, 1000}}), (Parts{30, 30, 30}));
  EXPECT_EQ(shared_fairly(90, {{1, 10}, {1, 1000}, {1, 1000}}), (Parts{10, 40, 40})) << "the rest is the others'";
  EXPECT_EQ(shared_fairly(90, {{60, 1000}, {1, 1000}, {1, 1000}}), (Parts{60, 15, 15}));
  EXPECT_EQ(shared_fairly(90, {{1, 10}, {1, 20}}), (Parts{10, 20})) << "nobody needs more";
  EXPECT_EQ(shared_fairly(5, {{3, 10}, {4, 10}}), (Parts{3, 4}));
  EXPECT_TRUE(shared_fairly(5, {}).empty());
}

struct User final : CacheUser {
  void limit_cache(std::uint64_t bytes) override { limit = bytes; }
  std::uint64_t held_cache() const override { return holds; }
  std::uint64_t limit = 0, holds = 0;
};

TEST(CacheBudget, PartsChangeAsUsersComeAndGo) {
  const auto budget = std::make_shared<CacheBudget>(90);
  User one, two, three;
  const auto first = budget->join(one, {10, 1000}, "one").value();
  EXPECT_EQ(one.limit, 90u);
  auto second = budget->join(two, {10, 1000}, "two").value();
  EXPECT_EQ(one.limit, 45u);
  EXPECT_EQ(two.limit, 45u);
  const auto refused = budget->join(three, {71, 1000}, "three");
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::kOutOfMemory);
  EXPECT_EQ(refused.error().hint, "--cache-bytes 91 would do");
  EXPECT_EQ(one.limit, 45u) << "nothing has changed";
  second.reset();
  EXPECT_EQ(one.limit, 90u);
  one.holds = 20;
  const auto tight = budget->join(three, {10, 1000}, "three", 40).value();
  EXPECT_EQ(budget->held(), 20u);
  EXPECT_EQ(one.limit + three.limit, 60u) << "what is held, and what the machine has left";
}

class Answers final : public AnswerListener {
 public:
  void on_prompt(int, const PromptRead&) override {}
  void on_text(int, std::string_view, std::span<const SampledToken>) override {}
  void on_end(int, const AnswerEnd&) override { ended_.set_value(true); }
  void on_error(int, const Error&) override { ended_.set_value(false); }
  bool wait() { return ended_.get_future().get(); }

 private:
  std::promise<bool> ended_;
};

EngineRequest ask(int tokens) {
  EngineRequest request;
  request.prompt = TokenList{50, 51, 52};
  request.sampling.max_tokens = tokens;
  request.sampling.ignore_end = true;
  return request;
}

bool answers(Engine& engine, int tokens) {
  const auto heard = std::make_shared<Answers>();
  return engine.submit(ask(tokens), heard).has_value() && heard->wait();
}

EngineOptions one_lane() {
  EngineOptions options;
  options.threads = 1;
  options.lanes = 1;
  return options;
}

/// Bytes of a token's keys and values.
std::uint64_t cell_bytes() {
  EngineOptions options = one_lane();
  options.cache_bytes = std::uint64_t{64} << 20;
  Engine engine = Engine::load(testing::tiny_llama(), options).value();
  EXPECT_TRUE(answers(engine, 4));
  return engine.stats().cache_bytes / 1024;  // a lane begins with so many
}

TEST(CacheBudget, SeveralDecodersStayWithinIt) {
  EngineOptions options = one_lane();
  const std::uint64_t cell = cell_bytes(), bytes = 2048 * cell;
  ASSERT_GT(cell, 0u);
  options.cache = std::make_shared<CacheBudget>(bytes);
  Engine first = Engine::load(testing::tiny_llama(), options).value();
  EXPECT_EQ(first.stats().cells, 2048u);
  ASSERT_TRUE(answers(first, 1800));
  EXPECT_EQ(first.stats().cache_bytes, bytes) << "alone it takes all";
  {
    std::vector<Engine> others;
    for (int i = 0; i < 3; ++i) others.push_back(Engine::load(testing::tiny_llama(), options).value());
    EXPECT_EQ(first.stats().cells, 512u);
    while (options.cache->held() > 0) std::this_thread::yield();  // what is idle gives back what is not its own
    for (Engine& engine : others) ASSERT_TRUE(answers(engine, 400));
    ASSERT_TRUE(answers(first, 400));
    EXPECT_LE(options.cache->held(), bytes);
    for (const Engine& engine : others) EXPECT_EQ(engine.stats().cache_bytes, 512 * cell);
    std::vector<Engine> more;
    for (int i = 0; i < 4; ++i) more.push_back(Engine::load(testing::tiny_llama(), options).value());
    const auto refused = Engine::load(testing::tiny_llama(), options);
    ASSERT_FALSE(refused) << "256 tokens are the least of a lane";
    EXPECT_EQ(refused.error().code, ErrorCode::kOutOfMemory);
    EXPECT_NE(refused.error().hint.find("--cache-bytes"), std::string::npos);
  }
  EXPECT_EQ(first.stats().cells, 2048u) << "it is its own again";
  EXPECT_TRUE(answers(first, 1800));
}

TEST(CacheBudget, WhatWasTakenInBeforeAnotherCameIsAnswered) {
  EngineOptions options = one_lane();
  const std::uint64_t bytes = 2048 * cell_bytes();
  options.cache = std::make_shared<CacheBudget>(bytes);
  Engine first = Engine::load(testing::tiny_llama(), options).value();
  const auto heard = std::make_shared<Answers>();
  std::optional<Engine> second;
  {
    const Engine::Hold hold(first);
    ASSERT_TRUE(first.submit(ask(1800), heard));
    second.emplace(Engine::load(testing::tiny_llama(), options).value());
    EXPECT_EQ(first.stats().cells, 1024u);
  }
  EXPECT_TRUE(heard->wait());
  EXPECT_TRUE(answers(first, 100));
  while (first.stats().cache_bytes > bytes / 2) std::this_thread::yield();  // given back afterwards
}

}  // namespace
}  // namespace tailor
