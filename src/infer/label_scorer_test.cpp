#include "infer/label_scorer.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>

#include "core/files.h"
#include "infer/packed_matrix.h"
#include "infer/test_models.h"
#include "model/requantize.h"

namespace tailor {
namespace {

using testing::expect_error;
using testing::tiny_llama;

const LabelScorerOptions kExact{.threads = 1, .f32_cache = true, .flash_attention = false};
const CancelToken kNever;

TokenList random_tokens(Rng& rng, std::size_t n) {
  TokenList tokens(n);
  for (std::int32_t& t : tokens) t = static_cast<std::int32_t>(20 + rng.below(40000));
  return tokens;
}

/// Labels with many shared beginnings: tokens from a small set, an end token that appears nowhere else.
std::vector<TokenList> random_labels(Rng& rng, std::size_t n) {
  std::vector<TokenList> labels;
  while (labels.size() < n) {
    TokenList label;
    for (std::size_t length = 1 + rng.below(4); length > 0; --length)
      label.push_back(static_cast<std::int32_t>(100 + rng.below(5)));
    label.push_back(198);
    if (std::find(labels.begin(), labels.end(), label) == labels.end()) labels.push_back(std::move(label));
  }
  return labels;
}

void expect_scores(const LabelScores& seen, const LabelScores& expected, double tolerance) {
  ASSERT_EQ(seen.size(), expected.size());
  for (std::size_t i = 0; i < seen.size(); ++i) EXPECT_NEAR(seen[i], expected[i], tolerance) << "label " << i;
}

// Positions or sequence sets that are wrong give wrong scores without a word from llama.cpp: this is what would show
// it.
TEST(LabelScorer, TrieEqualsOneLabelAtATime) {
  Rng rng(1);
  for (const bool flash : {false, true}) {
    const double tolerance = flash ? 0.1 : 1e-4;  // flash attention rounds keys and values to f16
    LabelScorer scorer =
        LabelScorer::load(tiny_llama(), {.threads = 2, .f32_cache = true, .flash_attention = flash}).value();
    const TokenList prefix = random_tokens(rng, 12);
    scorer.set_prefix(prefix).value();
    scorer.set_labels(random_labels(rng, 40)).value();
    std::vector<TokenList> prompts;
    for (const std::size_t length : {1u, 3u, 9u, 30u, 150u, 2u, 5u, 8u, 96u, 97u}) {  // 97: decoded apart and copied
      TokenList prompt = prefix;
      const TokenList own = random_tokens(rng, length);
      prompt.insert(prompt.end(), own.begin(), own.end());
      prompts.push_back(std::move(prompt));
    }
    const std::vector<LabelScores> scores = scorer.score_all(prompts, {}, kNever).value();
    for (std::size_t i = 0; i < prompts.size(); ++i)
      expect_scores(scores[i], scorer.score_one_at_a_time(prompts[i]).value(), tolerance);
    // Again, after the other use of the contexts, and a single prompt on all threads.
    expect_scores(scorer.score_all(std::span(prompts).subspan(3, 1), {}, kNever).value()[0], scores[3], tolerance);
  }
}

TEST(LabelScorer, ManyLabelsInGroups) {
  Rng rng(2);
  LabelScorer scorer = LabelScorer::load(tiny_llama(), kExact).value();
  std::vector<TokenList> labels;  // 300 paths, more than llama.cpp's sequences
  for (std::int32_t i = 0; i < 300; ++i) labels.push_back({100 + i % 7, 1000 + i, 2000 + i % 3});
  labels.push_back({50});
  scorer.set_labels(labels).value();
  const std::vector<TokenList> prompts{random_tokens(rng, 6), random_tokens(rng, 4)};
  const std::vector<LabelScores> scores = scorer.score_all(prompts, {}, kNever).value();
  const std::vector<BestLabel> best = scorer.best(prompts, {}, {}, kNever).value();
  for (std::size_t i = 0; i < prompts.size(); ++i) {
    expect_scores(scores[i], scorer.score_one_at_a_time(prompts[i]).value(), 1e-4);
    EXPECT_EQ(best[i].label, std::max_element(scores[i].begin(), scores[i].end()) - scores[i].begin());
  }
}

TEST(LabelScorer, SubsetsScoreAsTheWhole) {
  Rng rng(3);
  LabelScorer scorer = LabelScorer::load(tiny_llama(), kExact).value();
  scorer.set_labels(random_labels(rng, 20)).value();
  const std::vector<TokenList> prompts{random_tokens(rng, 6), random_tokens(rng, 7), random_tokens(rng, 5)};
  const std::vector<LabelScores> all = scorer.score_all(prompts, {}, kNever).value();
  const std::vector<std::vector<std::int32_t>> subsets{{4, 2}, {}, {19}};
  const std::vector<LabelScores> some = scorer.score_all(prompts, {}, kNever, subsets).value();
  EXPECT_NEAR(some[0][4], all[0][4], 1e-4);
  EXPECT_NEAR(some[0][2], all[0][2], 1e-4);
  EXPECT_EQ(some[0][3], -std::numeric_limits<double>::infinity());
  expect_scores(some[1], all[1], 1e-4);
  EXPECT_NEAR(some[2][19], all[2][19], 1e-4);
  EXPECT_EQ(scorer.best(prompts, {}, {}, kNever, subsets).value()[2].label, 19);
}

// Weights in blocks round values to bytes: a difference in the last digit is then one that can be seen.
TEST(LabelScorer, ScoresAreTheSameAloneAndInCompanyToTheLastBit) {
  if (!packed_products()) GTEST_SKIP() << "products with blocks are ggml's here, whose sums depend on the other tokens";
  const TemporaryDirectory dir("labels");
  requantize(tiny_llama(), dir.path() / "q8.gguf", QuantType::kQ8_0, 1).value();
  Rng rng(8);
  LabelScorer scorer = LabelScorer::load(dir.path() / "q8.gguf", {.threads = 2}).value();
  const TokenList prefix = random_tokens(rng, 21);
  scorer.set_prefix(prefix).value();
  const std::vector<TokenList> labels = random_labels(rng, 40);
  scorer.set_labels(labels).value();
  std::vector<TokenList> prompts;
  for (int i = 0; i < 40; ++i) {
    TokenList prompt = prefix;
    const TokenList own = random_tokens(rng, i % 20 == 7 ? 120 : 1 + rng.below(30));
    prompt.insert(prompt.end(), own.begin(), own.end());
    prompts.push_back(std::move(prompt));
  }
  const std::vector<LabelScores> together = scorer.score_all(prompts, {}, kNever).value();
  const std::vector<BestLabel> best = scorer.best(prompts, {}, {}, kNever).value();
  LabelScorer other = LabelScorer::load(dir.path() / "q8.gguf", {.threads = 1}).value();
  other.set_prefix(prefix).value();
  other.set_labels(labels).value();
  for (std::size_t i = 0; i < prompts.size(); ++i) {
    EXPECT_EQ(other.score_all({&prompts[i], 1}, {}, kNever).value()[0], together[i]) << "prompt " << i;
    const auto highest = std::max_element(together[i].begin(), together[i].end());
    EXPECT_EQ(best[i].label, highest - together[i].begin());
    EXPECT_EQ(best[i].score, *highest);
  }
}

TEST(LabelScorer, BestFirstFindsWhatFullScoresFind) {
  Rng rng(4);
  LabelScorer scorer =
      LabelScorer::load(tiny_llama(), {.threads = 2, .f32_cache = true, .flash_attention = false}).value();
  const TokenList prefix = random_tokens(rng, 5);
  scorer.set_prefix(prefix).value();
  const std::vector<TokenList> labels = random_labels(rng, 40);
  scorer.set_labels(labels).value();
  std::vector<TokenList> prompts;
  for (int i = 0; i < 200; ++i) {
    TokenList prompt = prefix;
    const TokenList own = random_tokens(rng, i % 50 == 0 ? 120 : 1 + rng.below(12));
    prompt.insert(prompt.end(), own.begin(), own.end());
    prompts.push_back(std::move(prompt));
  }
  const std::vector<LabelScores> scores = scorer.score_all(prompts, {}, kNever).value();

  ScoreCalibration by_length, biased;
  for (const TokenList& label : labels) {
    by_length.bias.push_back(0);
    by_length.norm.push_back(static_cast<double>(label.size()));
    biased.bias.push_back(4 * rng.normal() - 10);  // of either sign, as strong as the scores' own spread
    biased.norm.push_back(0.5 + rng.uniform());
  }
  for (const ScoreCalibration& calibration : {ScoreCalibration{}, by_length, biased}) {
    const std::vector<BestLabel> best = scorer.best(prompts, calibration, {}, kNever).value();
    double nodes = 0;
    for (std::size_t i = 0; i < prompts.size(); ++i) {
      double highest = -std::numeric_limits<double>::infinity();
      std::size_t arg = 0;
      for (std::size_t l = 0; l < labels.size(); ++l) {
        const double score =
            calibration.norm.empty() ? scores[i][l] : (scores[i][l] - calibration.bias[l]) / calibration.norm[l];
        if (score > highest) highest = score, arg = l;
      }
      EXPECT_NEAR(best[i].score, highest, 1e-4) << "prompt " << i;
      // Two labels within rounding of each other may change places.
      const auto chosen = static_cast<std::size_t>(best[i].label);
      const double its = calibration.norm.empty()
                             ? scores[i][chosen]
                             : (scores[i][chosen] - calibration.bias[chosen]) / calibration.norm[chosen];
      EXPECT_TRUE(chosen == arg || highest - its < 1e-4) << "prompt " << i;
      nodes += best[i].nodes;
    }
    EXPECT_LT(nodes / static_cast<double>(prompts.size()), scorer.trie_nodes())
        << "the search computes more than the whole trie";
  }
}

TEST(LabelScorer, ResultsDoNotDependOnCompany) {
  Rng rng(5);
  LabelScorer scorer =
      LabelScorer::load(tiny_llama(), {.threads = 2, .f32_cache = true, .flash_attention = false}).value();
  scorer.set_labels(random_labels(rng, 10)).value();
  std::vector<TokenList> prompts;
  for (int i = 0; i < 40; ++i) prompts.push_back(random_tokens(rng, 1 + rng.below(20)));
  const std::vector<LabelScores> together = scorer.score_all(prompts, {}, kNever).value();
  for (std::size_t i = 0; i < prompts.size(); i += 7) {
    expect_scores(scorer.score_all(std::span(prompts).subspan(i, 1), {}, kNever).value()[0], together[i], 1e-4);
  }
}

TEST(LabelScorer, AContextTooShortForAPromptAndALabelIsRefused) {
  const TemporaryDirectory dir("labels");
  const auto soft = dir.path() / "soft.safetensors";
  testing::write_soft_prompt(soft);  // 7 tokens
  const auto load = [](int max_context, const std::filesystem::path& soft_prompt) {
    return LabelScorer::load(tiny_llama(), {.threads = 1, .max_context = max_context, .soft_prompt = soft_prompt});
  };
  for (const int too_short : {1, 5, 7, 8}) {
    expect_error(
        load(too_short, soft), ErrorCode::kInvalidArgument,
        "expected a context of at least 9 tokens, 7 of them for the soft prompt, got " + std::to_string(too_short));
  }
  expect_error(load(1, {}), ErrorCode::kInvalidArgument, "expected a context of at least 2 tokens, got 1");
  for (const int least : {2, 9}) {
    LabelScorer scorer = load(least, least == 9 ? soft : "").value();
    EXPECT_EQ(scorer.max_context(), 2);
    scorer.set_labels({{10}, {11}}).value();
    EXPECT_TRUE(scorer.score_all(std::vector<TokenList>{{5}}, {}, kNever).has_value());
    expect_error(scorer.score_all(std::vector<TokenList>{{5, 6}}, {}, kNever), ErrorCode::kInvalidArgument,
                 "the model reads");
  }
}

TEST(LabelScorer, Failures) {
  expect_error(LabelScorer::load("no-such.gguf"), ErrorCode::kNotFound, "no-such.gguf");
  expect_error(LabelScorer::load(tiny_llama(), {.threads = -1}), ErrorCode::kInvalidArgument, "threads -1");
  expect_error(LabelScorer::load(testing::minilm_gguf(ImportType::kF16)), ErrorCode::kUnavailable, "decoder");
  expect_error(LabelScorer::load(tiny_llama(), {.adapter = "no-such-adapter.gguf"}), ErrorCode::kNotFound,
               "no-such-adapter.gguf");

  LabelScorer scorer = LabelScorer::load(tiny_llama(), {.threads = 1, .max_context = 32}).value();
  const std::vector<TokenList> prompt{{5, 6, 7}};
  expect_error(scorer.score_all(prompt, {}, kNever), ErrorCode::kInvalidArgument, "labels were not set");
  expect_error(scorer.set_labels({{1, 2}, {999999}}), ErrorCode::kInvalidArgument, "token 999999");
  scorer.set_labels({{10, 11}, {12, 13}}).value();
  expect_error(scorer.set_prefix(TokenList(32, 5)), ErrorCode::kInvalidArgument, "32 tokens");
  scorer.set_prefix({5, 6}).value();
  expect_error(scorer.score_all(std::vector<TokenList>{{5, 6}}, {}, kNever), ErrorCode::kInvalidArgument,
               "does not go on");
  expect_error(scorer.score_all(std::vector<TokenList>{{5, 7, 8}}, {}, kNever), ErrorCode::kInvalidArgument,
               "does not go on");
  TokenList long_prompt(40, 5);
  long_prompt[1] = 6;
  expect_error(scorer.score_all(std::vector<TokenList>{long_prompt}, {}, kNever), ErrorCode::kInvalidArgument,
               "40 tokens");
  expect_error(scorer.best(prompt, {.bias = {0}, .norm = {1}}, {}, kNever), ErrorCode::kInvalidArgument,
               "1 biases and 1 norms for 2 labels");
  expect_error(scorer.best(prompt, {.bias = {0, 0}, .norm = {1, 0}}, {}, kNever), ErrorCode::kInvalidArgument,
               "norms above 0");
  CancelToken cancelled;
  cancelled.cancel();
  expect_error(scorer.score_all(prompt, {}, cancelled), ErrorCode::kCancelled, "interrupted");
  expect_error(scorer.best(prompt, {}, {}, cancelled), ErrorCode::kCancelled, "interrupted");
  EXPECT_TRUE(scorer.score_all(prompt, {}, kNever).has_value());  // and works after all that
  EXPECT_TRUE(scorer.score_all({}, {}, kNever).value().empty());
}

}  // namespace
}  // namespace tailor
