#include "tune/soft_prompt_start.h"

#include <gtest/gtest.h>

#include <set>

#include "core/result.h"

namespace tailor::tune {
namespace {

using Ids = std::vector<std::int32_t>;

TokenFile rows() {
  TokenFile file;
  file.n_labels = 2;
  file.vocab_size = 60;
  file.add_label(Ids{10, 11, 2});
  file.add_label(Ids{12, 2});
  file.add_row(Ids{30, 31, 32}, 0, TokenPart::kTrain, 0);
  return file;
}

TEST(SoftPromptWords, AreThoseOfTheLabelsThenOfTheRows) {
  EXPECT_EQ(soft_prompt_words({.tokens = 2}, rows(), 60, 1), (Ids{10, 11}));
  EXPECT_EQ(soft_prompt_words({.tokens = 8}, rows(), 60, 1), (Ids{10, 11, 12, 30, 31, 32, 10, 11}));
}

TEST(SoftPromptWords, OfATextComeAgainUntilThereAreEnough) {
  EXPECT_EQ(soft_prompt_words({.tokens = 5, .start = {7, 8}}, rows(), 60, 1), (Ids{7, 8, 7, 8, 7}));
  EXPECT_EQ(soft_prompt_words({.tokens = 1, .start = {7, 8}}, rows(), 60, 1), (Ids{7}));
  EXPECT_THROW(soft_prompt_words({.tokens = 5, .start = {60}}, rows(), 60, 1), Exception);
}

TEST(SoftPromptWords, AreDrawnFromTheCommonestTokensBySeed) {
  const SoftPromptSettings drawn{.tokens = 20, .init = SoftPromptInit::kVocabulary};
  const Ids words = soft_prompt_words(drawn, rows(), 49152, 1);
  EXPECT_EQ(words, soft_prompt_words(drawn, rows(), 49152, 1));
  EXPECT_NE(words, soft_prompt_words(drawn, rows(), 49152, 2));
  EXPECT_EQ(std::set<std::int32_t>(words.begin(), words.end()).size(), 20u);
  for (const std::int32_t word : words) EXPECT_LT(word, 5000);
  const Ids few = soft_prompt_words(drawn, rows(), 6, 1);  // a vocabulary smaller than the prompt
  EXPECT_EQ(few.size(), 20u);
  for (const std::int32_t word : few) EXPECT_LT(word, 6);
}

}  // namespace
}  // namespace tailor::tune
