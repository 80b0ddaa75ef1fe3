#include "infer/sampling.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <map>

#include "infer/text_stream.h"
#include "model/test_support.h"

namespace tailor {
namespace {

const std::vector<std::int32_t> kPrompt{0, 1};
const std::vector<std::int32_t> kEnds{4};

/// What comes out of `logits` in many draws, as shares.
std::map<std::int32_t, double> shares(SamplingOptions options, const std::vector<float>& logits, int draws = 20000) {
  std::map<std::int32_t, double> out;
  for (int i = 0; i < draws; ++i) {
    options.seed = static_cast<std::uint64_t>(i);
    Sampler sampler(options, kPrompt, kEnds, 0, nullptr);
    std::vector<float> copy = logits;
    out[sampler.next(copy).value().token] += 1.0 / draws;
  }
  return out;
}

TEST(Sampler, DrawsByProbability) {
  const std::vector<float> logits{std::log(0.5f), std::log(0.3f), std::log(0.15f), std::log(0.05f), -100};
  auto got = shares({.temperature = 1}, logits);
  EXPECT_NEAR(got[0], 0.5, 0.015);
  EXPECT_NEAR(got[1], 0.3, 0.015);
  EXPECT_NEAR(got[3], 0.05, 0.01);
  EXPECT_EQ(got.count(4), 0u);
  got = shares({.temperature = 0.5}, logits);  // squares: 0.25, 0.09, 0.0225, 0.0025 of 0.365
  EXPECT_NEAR(got[0], 0.685, 0.015);
  EXPECT_NEAR(got[1], 0.247, 0.015);
  got = shares({.temperature = 1, .top_k = 2}, logits);
  EXPECT_NEAR(got[0], 0.625, 0.015);
  EXPECT_EQ(got.size(), 2u);
  got = shares({.temperature = 1, .top_p = 0.79}, logits);  // 0.5 alone is less than 0.79, 0.8 is not
  EXPECT_EQ(got.size(), 2u);
  got = shares({.temperature = 1, .top_p = 0.81}, logits);
  EXPECT_EQ(got.size(), 3u);
  got = shares({.temperature = 1, .min_p = 0.31}, logits);  // 0.15 is 0.3 of 0.5
  EXPECT_EQ(got.size(), 2u);
  got = shares({.temperature = 0}, logits);
  EXPECT_EQ(got.size(), 1u);
}

/// As vLLM has it. After top-p, min-p would leave three.
TEST(Sampler, MinPComesBeforeTopP) {
  std::vector<float> logits;
  for (const float p : {0.5f, 0.3f, 0.1f, 0.06f, 0.04f}) logits.push_back(std::log(p));
  EXPECT_EQ(shares({.temperature = 1, .min_p = 0.15}, logits).size(), 3u);
  EXPECT_EQ(shares({.temperature = 1, .top_p = 0.85}, logits).size(), 3u);
  EXPECT_EQ(shares({.temperature = 1, .top_p = 0.85, .min_p = 0.15}, logits).size(), 2u) << "0.8 is 0.89 of 0.9";
}

TEST(Sampler, PenaltiesBiasAndEnds) {
  const auto greedy = [](const SamplingOptions& options, std::vector<std::vector<float>> steps) {
    Sampler sampler(options, kPrompt, kEnds, 0, nullptr);
    std::vector<std::int32_t> out;
    for (auto& logits : steps) out.push_back(sampler.next(logits).value().token);
    return out;
  };
  const std::vector<float> near{1.0f, 0.9f, 0.8f, -1, -1};
  using Ids = std::vector<std::int32_t>;
  EXPECT_EQ(greedy({.repetition_penalty = 1.5}, {near, near}), (Ids{2, 0}));  // 0 and 1 stand in the prompt
  EXPECT_EQ(greedy({.presence_penalty = 0.15}, {near, near, near}), (Ids{0, 1, 0}));
  EXPECT_EQ(greedy({.frequency_penalty = 0.06}, {near, near, near, near}), (Ids{0, 0, 1, 0}));
  EXPECT_EQ(greedy({.logit_bias = {{0, -100}, {3, 3}}}, {near}), (Ids{3}));
  const std::vector<float> ending{0, 0.1f, 0, 0, 5};
  EXPECT_EQ(greedy({.min_tokens = 2}, {ending, ending, ending}), (Ids{1, 1, 4}));
  EXPECT_EQ(greedy({.ignore_end = true}, {ending, ending, ending}), (Ids{1, 1, 1}));
}

TEST(Sampler, IgnoringTheModelsEndLeavesStopTokens) {
  const auto greedy = [](const SamplingOptions& options, std::vector<float> logits) {
    Sampler sampler(options, kPrompt, kEnds, 0, nullptr);
    return sampler.next(logits).value().token;
  };
  const std::vector<float> logits{0, 0.1f, 0, 4, 5};
  EXPECT_EQ(greedy({.stop_tokens = {3}, .ignore_end = true}, logits), 3);
  EXPECT_EQ(greedy({.stop_tokens = {4}, .ignore_end = true}, logits), 4) << "the model's end, asked for by name";
  EXPECT_EQ(greedy({.stop_tokens = {3}}, logits), 4);
  EXPECT_EQ(greedy({.stop_tokens = {3, 3, 4}, .min_tokens = 1}, logits), 1);
  EXPECT_EQ(greedy({.stop_tokens = {3}, .min_tokens = 1, .ignore_end = true}, logits), 1);
}

TEST(Sampler, TellsRawLogprobs) {
  SamplingOptions options{.temperature = 0.3, .logit_bias = {{0, -100}}, .top_logprobs = 2};
  Sampler sampler(options, kPrompt, kEnds, 0, nullptr);
  std::vector<float> logits{std::log(0.6f), std::log(0.2f), std::log(0.1f), std::log(0.06f), std::log(0.04f)};
  const SampledToken got = sampler.next(logits).value();
  ASSERT_EQ(got.top.size(), 2u);
  EXPECT_EQ(got.top[0].token, 0);  // though it may not be drawn
  EXPECT_NEAR(got.top[0].logprob, std::log(0.6), 1e-5);
  EXPECT_NEAR(got.top[1].logprob, std::log(0.2), 1e-5);
  EXPECT_NE(got.token, 0);
  EXPECT_NEAR(got.logprob, std::log(std::vector{0.6, 0.2, 0.1, 0.06, 0.04}[static_cast<std::size_t>(got.token)]), 1e-5);
}

TEST(Sampler, ABrokenModelsNumbersGiveSomeToken) {
  for (const double temperature : {0.0, 1.0}) {
    Sampler sampler({.temperature = temperature, .top_k = 2, .top_p = 0.5, .top_logprobs = 1}, kPrompt, kEnds, 0,
                    nullptr);
    std::vector<float> logits(40, std::numeric_limits<float>::quiet_NaN());
    const std::int32_t token = sampler.next(logits).value().token;
    EXPECT_GE(token, 0);
    EXPECT_LT(token, 40);
  }
}

class OnlyOdd final : public TokenConstraint {
 public:
  Status fill_mask(std::span<std::uint32_t> bits) override {
    bits[0] = 0b01010;
    return {};
  }
  Status accept(std::int32_t token) override {
    if (token % 2 == 1) return {};
    return Error{ErrorCode::kInternal, "even", ""};
  }
};

TEST(Sampler, KeepsToItsConstraint) {
  Sampler sampler({.temperature = 1}, kPrompt, kEnds, 0, std::make_unique<OnlyOdd>());
  for (int i = 0; i < 100; ++i) {
    std::vector<float> logits{9, 0, 9, 0, 9};
    EXPECT_EQ(sampler.next(logits).value().token % 2, 1);
  }
  Sampler none({.logit_bias = {{1, -100}, {3, -100}}}, kPrompt, kEnds, 0, std::make_unique<OnlyOdd>());
  std::vector<float> logits{9, 0, 9, 0, 9};
  testing::expect_error(none.next(logits), ErrorCode::kInvalidArgument, "no token may follow");
}

/// Allows a token of each step's bits.
class StepByStep final : public TokenConstraint {
 public:
  explicit StepByStep(std::vector<std::uint32_t> steps) : steps_(std::move(steps)) {}
  Status fill_mask(std::span<std::uint32_t> bits) override {
    bits[0] = steps_[at_++];
    return {};
  }
  Status accept(std::int32_t) override { return {}; }

 private:
  std::vector<std::uint32_t> steps_;
  std::size_t at_ = 0;
};

TEST(Sampler, ATextThatIsCompleteEndsWhateverMinTokensSays) {
  const auto second = [](const SamplingOptions& options, std::uint32_t mask) {
    Sampler sampler(options, kPrompt, kEnds, 0, std::make_unique<StepByStep>(std::vector{0b00001u, mask}));
    std::vector<float> logits{0, 0, 0, 0, 9}, again = logits;
    EXPECT_EQ(sampler.next(logits).value().token, 0);
    return sampler.next(again).value().token;
  };
  EXPECT_EQ(second({.min_tokens = 8}, 0b10000), 4);
  EXPECT_EQ(second({.min_tokens = 8}, 0b11000), 3) << "it may go on";
  EXPECT_EQ(second({.stop_tokens = {3}, .min_tokens = 8}, 0b01000), 3);
  EXPECT_EQ(second({.stop_tokens = {4, 4}, .min_tokens = 8}, 0b10000), 4);
}

TEST(TextStream, HoldsBackWhatMayBeAStop) {
  TextStream stream({"STOP", "\n\n"});
  EXPECT_TRUE(stream.add("one ST"));
  EXPECT_EQ(stream.take(), "one ");
  EXPECT_TRUE(stream.add("AY\n"));
  EXPECT_EQ(stream.take(), "STAY");
  EXPECT_TRUE(stream.add("x"));
  EXPECT_EQ(stream.take(), "\nx");
  EXPECT_FALSE(stream.add("y STOP and more\n\n"));
  EXPECT_EQ(stream.take(), "y ");
  EXPECT_EQ(stream.stop(), "STOP");
  EXPECT_EQ(stream.text(), "one STAY\nxy ");
}

TEST(TextStream, OfSeveralStopsTheFirstInTheText) {
  TextStream stream({"later", "now", "no"}, true);
  EXPECT_FALSE(stream.add("a now or later"));
  EXPECT_EQ(stream.text(), "a now");  // "now" and "no" begin at one place: the one named first
  TextStream bytes;
  EXPECT_TRUE(bytes.add("caf\xC3"));
  EXPECT_EQ(bytes.take(), "caf");
  EXPECT_TRUE(bytes.add("\xA9\xE6\x9D"));
  EXPECT_EQ(bytes.take(), "é");
  bytes.finish();  // half a character is nothing
  EXPECT_EQ(bytes.text(), "café");
}

}  // namespace
}  // namespace tailor
