#include "eval/target_scores.h"

#include <gtest/gtest.h>

#include <cstdlib>

#include "core/result.h"
#include "eval/eval_golden.h"

namespace tailor {
namespace {

Json golden() {
  const char* tree = std::getenv("TAILOR_SOURCE_DIR");
  return read_json(std::string(tree ? tree : ".") + "/tests/golden/data/target_scores.json").value();
}

TEST(TargetScores, NumbersAreScoredAsByScipyAndScikitLearn) {
  const Json g = golden();
  const auto truth = numbers<double>(g["truth"]), predicted = numbers<double>(g["predicted"]);
  EXPECT_NEAR(root_mean_squared_error(truth, predicted), g["rmse"].get<double>(), 1e-9);
  EXPECT_NEAR(mean_absolute_error(truth, predicted), g["mae"].get<double>(), 1e-9);
  EXPECT_NEAR(pearson_correlation(truth, predicted), g["pearson"].get<double>(), 1e-9);
  EXPECT_NEAR(spearman_correlation(truth, predicted), g["spearman"].get<double>(), 1e-9);
  const NumberScores scores = bootstrap_numbers(truth, predicted, {.resamples = 200, .seed = 3});
  for (const Interval& i : {scores.rmse, scores.mae, scores.pearson, scores.spearman}) {
    EXPECT_LE(i.low, i.value);
    EXPECT_GE(i.high, i.value);
    EXPECT_LT(i.low, i.high);
  }
}

TEST(TargetScores, LabelSetsAreScoredAsByScikitLearn) {
  const Json g = golden();
  const auto truth = numbers<std::uint8_t>(g["sets"]), said = numbers<std::uint8_t>(g["said"]);
  const LabelSets sets{g["labels"].get<std::size_t>(), truth, said};
  EXPECT_NEAR(micro_f1(sets), g["micro_f1"].get<double>(), 1e-9);
  EXPECT_NEAR(macro_f1(sets), g["macro_f1"].get<double>(), 1e-9);
  EXPECT_NEAR(subset_accuracy(sets), g["subset_accuracy"].get<double>(), 1e-9);
  const LabelSetScores scores = bootstrap_label_sets(sets, {.resamples = 200, .seed = 3});
  EXPECT_LT(scores.micro_f1.low, scores.micro_f1.value);
  EXPECT_GT(scores.micro_f1.high, scores.micro_f1.value);
}

TEST(TargetScores, TheThresholdIsTheBestOneNearestToTheMiddle) {
  const std::vector<std::uint8_t> truth = {1, 0, 1, 0};
  EXPECT_EQ(best_threshold(std::vector<float>{0.9f, 0.1f, 0.8f, 0.2f}, truth, 2), 0.5);
  EXPECT_EQ(best_threshold(std::vector<float>{0.40f, 0.1f, 0.345f, 0.2f}, truth, 2), 0.34);
  EXPECT_EQ(best_threshold(std::vector<float>{0.9f, 0.605f, 0.8f, 0.2f}, truth, 2), 0.61);
  EXPECT_EQ(best_threshold({}, {}, 2), 0.5);
}

TEST(TargetScores, NothingAndConstantsAreNoErrors) {
  EXPECT_EQ(root_mean_squared_error({}, {}), 0);
  const std::vector<double> constant = {2, 2, 2}, other = {1, 2, 3};
  EXPECT_EQ(pearson_correlation(constant, other), 0);
  EXPECT_EQ(spearman_correlation(other, constant), 0);
  EXPECT_THROW(mean_absolute_error(constant, std::vector<double>{1}), Exception);
}

}  // namespace
}  // namespace tailor
