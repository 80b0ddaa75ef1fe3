#include "eval/metrics.h"

#include <gtest/gtest.h>

#include <cmath>

#include "core/result.h"
#include "eval/eval_golden.h"

namespace tailor {
namespace {

constexpr double kTolerance = 1e-9;

void expect_average(const PrecisionRecallF1& got, const Json& want, const std::string& name) {
  EXPECT_NEAR(got.precision, want[0].get<double>(), kTolerance) << name;
  EXPECT_NEAR(got.recall, want[1].get<double>(), kTolerance) << name;
  EXPECT_NEAR(got.f1, want[2].get<double>(), kTolerance) << name;
}

void expect_scores(std::span<const int> truth, std::span<const int> predicted, int classes, const Json& want) {
  const auto confusion = confusion_matrix(truth, predicted, classes);
  EXPECT_EQ(confusion.counts, numbers<std::int64_t>(want["confusion"]));
  const Tally t = tally(truth, predicted, classes);
  const Tally same = tally(confusion);
  EXPECT_EQ(t.hits, same.hits);
  EXPECT_EQ(t.truths, same.truths);
  EXPECT_EQ(t.predicted, same.predicted);
  EXPECT_NEAR(accuracy(t), want["accuracy"].get<double>(), kTolerance);
  const auto per_class = class_scores(t);
  for (std::size_t c = 0; c < per_class.size(); ++c) {
    EXPECT_NEAR(per_class[c].precision, want["per_class"]["precision"][c].get<double>(), kTolerance);
    EXPECT_NEAR(per_class[c].recall, want["per_class"]["recall"][c].get<double>(), kTolerance);
    EXPECT_NEAR(per_class[c].f1, want["per_class"]["f1"][c].get<double>(), kTolerance);
    EXPECT_EQ(per_class[c].support, want["per_class"]["support"][c].get<std::int64_t>());
  }
  expect_average(macro_average(t), want["macro"], "macro");
  expect_average(weighted_average(t), want["weighted"], "weighted");
  expect_average(micro_average(t), want["micro"], "micro");
  EXPECT_NEAR(balanced_accuracy(t), want["balanced_accuracy"].get<double>(), kTolerance);
  EXPECT_NEAR(matthews_correlation(confusion), want["matthews"].get<double>(), kTolerance);
  if (want["kappa"].is_null()) {
    EXPECT_TRUE(std::isnan(cohen_kappa(confusion)));
  } else {
    EXPECT_NEAR(cohen_kappa(confusion), want["kappa"].get<double>(), kTolerance);
  }
}

TEST(Metrics, EqualScikitLearn) {
  const Json golden = eval_golden();
  for (const Json& c : golden["cases"]) {
    const int classes = c["classes"].get<int>();
    const auto truth = numbers<int>(c["truth"]);
    Matrix p(truth.size(), static_cast<std::size_t>(classes));
    p.data = numbers<float>(c["probabilities"]);
    const auto predicted = argmax_rows(p);
    EXPECT_EQ(predicted, numbers<int>(c["predicted"]));
    expect_scores(truth, predicted, classes, c["scores"]);
    EXPECT_NEAR(log_loss(truth, p), c["log_loss"].get<double>(), kTolerance);
    EXPECT_NEAR(brier_score(truth, p), c["brier"].get<double>(), kTolerance);
    EXPECT_NEAR(expected_calibration_error(truth, p), c["ece"].get<double>(), kTolerance);
    if (classes > 2) {
      EXPECT_NEAR(top_k_accuracy(truth, p, 3), c["top_3"].get<double>(), kTolerance);
    }
    EXPECT_NEAR(top_k_accuracy(truth, p, 1), accuracy(tally(truth, predicted, classes)), kTolerance);
  }
}

TEST(Metrics, ASingleClassEqualsScikitLearn) {
  const Json golden = eval_golden();
  const Json& d = golden["degenerate"];
  expect_scores(numbers<int>(d["truth"]), numbers<int>(d["predicted"]), 2, d["scores"]);
}

TEST(Metrics, RankingScoresEqualScikitLearn) {
  const Json golden = eval_golden();
  const Json& b = golden["binary"];
  const auto positive = numbers<int>(b["positive"]);
  const auto score = numbers<double>(b["score"]);
  EXPECT_NEAR(roc_auc(positive, score), b["roc_auc"].get<double>(), kTolerance);
  EXPECT_NEAR(average_precision(positive, score), b["average_precision"].get<double>(), kTolerance);
  EXPECT_TRUE(std::isnan(roc_auc(std::vector<int>{1, 1}, std::vector<double>{0.1, 0.2})));
}

TEST(Metrics, NoAnswerIsWrongAndBelongsToNoClass) {
  const std::vector<int> truth = {0, 0, 1, 1};
  const std::vector<int> predicted = {0, kNoAnswer, 1, kNoAnswer};
  const Tally t = tally(truth, predicted, 2);
  EXPECT_DOUBLE_EQ(accuracy(t), 0.5);
  EXPECT_DOUBLE_EQ(macro_average(t).precision, 1.0);
  EXPECT_DOUBLE_EQ(macro_average(t).recall, 0.5);
  EXPECT_DOUBLE_EQ(micro_average(t).precision, 1.0);
  const auto c = confusion_matrix(truth, predicted, 2);
  EXPECT_EQ(c.unanswered, (std::vector<std::int64_t>{1, 1}));
  EXPECT_EQ(tally(c).rows, 4);
  EXPECT_DOUBLE_EQ(expected_cost(c, std::vector<double>{0, 3, 5, 0}), (3.0 + 5.0) / 4.0);
}

TEST(Metrics, NothingToScoreIsZeroNotNan) {
  const Tally t = tally({}, {}, 3);
  EXPECT_EQ(accuracy(t), 0);
  EXPECT_EQ(macro_average(t).f1, 0);
  EXPECT_EQ(balanced_accuracy(t), 0);
}

TEST(Metrics, CallersMistakesThrow) {
  const std::vector<int> two = {0, 1};
  EXPECT_THROW(confusion_matrix(two, std::vector<int>{0}, 2), Exception);
  EXPECT_THROW(tally(two, std::vector<int>{0, 2}, 2), Exception);
  EXPECT_THROW(tally(std::vector<int>{0, kNoAnswer}, two, 2), Exception);
  EXPECT_THROW(log_loss(two, Matrix(1, 2)), Exception);
  EXPECT_THROW(expected_cost(confusion_matrix(two, two, 2), std::vector<double>{0, 1}), Exception);
}

}  // namespace
}  // namespace tailor
