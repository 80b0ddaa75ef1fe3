#include "eval/text_scores.h"

#include <gtest/gtest.h>

namespace tailor {
namespace {

// rouge_score 0.1.2, RougeScorer(["rougeL"], use_stemmer=False), fmeasure.
TEST(TextScores, RougeLIsThatOfRougeScore) {
  EXPECT_NEAR(rouge_l("The quick brown fox jumps over the lazy dog", "The quick brown dog jumps on the log."),
              0.5882352941, 1e-9);
  EXPECT_NEAR(rouge_l("Yes, from 1 May.", "yes from may"), 6.0 / 7.0, 1e-12);
  EXPECT_EQ(rouge_l("nothing", "alike"), 0);
  EXPECT_EQ(rouge_l("", "alike"), 0);
  EXPECT_EQ(rouge_l("A b\nc", "a B c"), 1);
}

TEST(TextScores, Means) {
  const std::vector<std::string> references{"{\"a\": 1}", "[2]"};
  const std::vector<GeneratedAnswer> answers{{" {\"a\": 1}\n", true}, {"[2", false}};
  const TextScores s = score_texts(answers, references);
  EXPECT_EQ(s.n, 2u);
  EXPECT_EQ(s.exact, 0.5);
  EXPECT_EQ(s.ended, 0.5);
  EXPECT_EQ(s.valid_json, 0.5);
  EXPECT_NEAR(s.length, (10.0 + 2) / (8 + 3), 1e-12);
  EXPECT_EQ(score_texts(answers, std::vector<std::string>{"plain", "[2]"}).valid_json, -1);
  EXPECT_EQ(score_texts({}, {}).n, 0u);
}

}  // namespace
}  // namespace tailor
