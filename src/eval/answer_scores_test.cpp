#include "eval/answer_scores.h"

#include <gtest/gtest.h>

#include <cstdlib>

#include "core/result.h"

namespace tailor {
namespace {

TEST(AnswerScores, AreThoseOfSquad) {
  const char* tree = std::getenv("TAILOR_SOURCE_DIR");
  const Json golden = read_json(std::string(tree ? tree : ".") + "/tests/golden/data/answer_scores.json").value();
  std::vector<std::string> answers;
  std::vector<References> references;
  double exact = 0, f1 = 0;
  for (const Json& row : golden) {
    answers.push_back(row.at("answer"));
    references.push_back(row.at("references").get<References>());
    EXPECT_EQ(answer_words(answers.back()), row.at("words").get<std::vector<std::string>>());
    const AnswerScores one = bootstrap_answers({&answers.back(), 1}, {&references.back(), 1}, {.resamples = 1});
    EXPECT_EQ(one.exact_match.value, row.at("exact").get<double>()) << answers.back();
    EXPECT_NEAR(one.f1.value, row.at("f1").get<double>(), 1e-9) << answers.back();
    exact += row.at("exact").get<double>() / static_cast<double>(golden.size());
    f1 += row.at("f1").get<double>() / static_cast<double>(golden.size());
  }
  const AnswerScores all = bootstrap_answers(answers, references, {.resamples = 200, .seed = 3});
  EXPECT_NEAR(all.exact_match.value, exact, 1e-9);
  EXPECT_NEAR(all.f1.value, f1, 1e-9);
  EXPECT_LT(all.f1.low, all.f1.value);
  EXPECT_GT(all.f1.high, all.f1.value);
  EXPECT_THROW(bootstrap_answers(answers, {}), Exception);
}

}  // namespace
}  // namespace tailor
