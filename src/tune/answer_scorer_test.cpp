#include "tune/answer_scorer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "tune/decoder_test_model.h"

namespace tailor::tune::decoder {
namespace {

using Tokens = std::vector<std::int32_t>;

/// Prompts of several lengths with three tokens in common; one stands twice, one is the beginning of another.
std::vector<Tokens> some_prompts() {
  Rng rng(3);
  std::vector<Tokens> prompts;
  for (std::size_t i = 0; i < 6; ++i) {
    Tokens prompt{7, 8, 9};
    for (std::size_t t = 0; t < 2 + i; ++t) prompt.push_back(static_cast<std::int32_t>(10 + rng.below(100)));
    prompts.push_back(prompt);
  }
  prompts.push_back(prompts[2]);
  prompts.emplace_back(prompts[4].begin(), prompts[4].end() - 2);
  return prompts;
}

/// Answers that begin alike, straight on for a while, are equal, and begin others.
std::vector<Tokens> some_answers() {
  return {{20, 21, 22, 23, 2}, {20, 21, 30, 2}, {20, 2}, {40, 41, 42, 43, 44, 2}, {50},
          {50, 51, 2},         {60, 2},         {60, 2}, {20, 21, 22, 24, 2}};
}

/// Each row on its own, through the whole model.
double plain_score(Decoder& decoder, const Tokens& prompt, const Tokens& answer) {
  Tokens row = prompt;
  row.insert(row.end(), answer.begin(), answer.end());
  std::vector<std::uint8_t> mask(prompt.size(), 0);
  mask.resize(row.size(), 1);
  const SequenceView view{row, mask};
  const auto tree = std::make_shared<PackedTree>(pack_tree({&view, 1}, Sharing::kNone));
  double sum = 0;
  for (const float loss : decoder.losses(tree)) sum -= loss;
  return sum;
}

TestModel sharp_model(float factor) {
  TestModel model = tiny_model(false);
  for (TestTensor& tensor : model.tensors) {
    if (tensor.name != "output_norm.weight") continue;
    for (float& value : tensor.values) value *= factor;
  }
  return model;
}

TEST(AnswerScorer, ScoresAreThoseOfSeparateRows) {
  OpenModel open(sharp_model(0.1f));  // near to even, ln 128 nats a token
  Decoder decoder(*open, nullptr);
  const auto prompts = some_prompts();
  auto answers = some_answers();
  std::erase_if(answers, [](const Tokens& a) { return a.size() > 4; });  // the others are too far from {50}
  const std::vector<std::span<const std::int32_t>> spans(answers.begin(), answers.end());
  const auto scores = score_answers(decoder, prompts, spans, {});
  ASSERT_EQ(scores.size(), prompts.size() * answers.size());
  for (std::size_t p = 0; p < prompts.size(); ++p) {
    for (std::size_t a = 0; a < answers.size(); ++a)
      EXPECT_NEAR(scores[p * answers.size() + a], plain_score(decoder, prompts[p], answers[a]), 1e-4) << p << ' ' << a;
  }
}

TEST(AnswerScorer, FarFromTheBestOneAnswersAreNotToldApart) {
  OpenModel open(sharp_model(40));
  Decoder decoder(*open, nullptr);
  const auto prompts = some_prompts();
  const auto answers = some_answers();
  const std::vector<std::span<const std::int32_t>> spans(answers.begin(), answers.end());
  std::vector<std::int32_t> exact(prompts.size(), 3);  // an unlikely one
  exact.back() = -1;
  const auto scores = score_answers(decoder, prompts, spans, exact);
  std::size_t cut = 0;
  for (std::size_t p = 0; p < prompts.size(); ++p) {
    std::vector<double> plain;
    for (const Tokens& answer : answers) plain.push_back(plain_score(decoder, prompts[p], answer));
    const double best = *std::max_element(plain.begin(), plain.end());
    for (std::size_t a = 0; a < answers.size(); ++a) {
      const double score = scores[p * answers.size() + a];
      if (std::abs(score - plain[a]) < 1e-3 * std::abs(plain[a])) continue;
      ++cut;
      EXPECT_NE(static_cast<std::int32_t>(a), exact[p]);
      EXPECT_GT(score, plain[a]) << p << ' ' << a;
      EXPECT_LT(score, best - kUnlikely) << p << ' ' << a;
    }
  }
  EXPECT_GT(cut, 0u);
}

TEST(AnswerScorer, OnePromptAlone) {
  OpenModel open(tiny_model(true));
  Decoder decoder(*open, nullptr);
  const std::vector<Tokens> prompts{{9}};
  const Tokens answer{4, 5};
  const std::vector<std::span<const std::int32_t>> answers{answer};
  EXPECT_NEAR(score_answers(decoder, prompts, answers, {})[0], plain_score(decoder, prompts[0], answer), 1e-4);
  EXPECT_TRUE(score_answers(decoder, {}, answers, {}).empty());
}

}  // namespace
}  // namespace tailor::tune::decoder
