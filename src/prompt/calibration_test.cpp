#include "prompt/calibration.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "model/test_support.h"
#include "prompt/demonstrations.h"

namespace tailor {
namespace {

using testing::expect_error;
constexpr double kOut = -std::numeric_limits<double>::infinity();

TEST(Calibration, ByHand) {
  const std::vector<std::size_t> tokens{1, 2};
  // Two rows, softmax (0.8, 0.2) and (0.6, 0.4): mean (0.7, 0.3).
  const std::vector<LabelScores> rows{{std::log(0.8), std::log(0.2)}, {std::log(0.6) - 5, std::log(0.4) - 5}};
  const Calibration c = calibrate(CalibrationKind::kBatchMean, false, rows, tokens).value();
  EXPECT_NEAR(c.scores.bias[0], std::log(0.7), 1e-12);
  EXPECT_NEAR(c.scores.bias[1], std::log(0.3), 1e-12);
  EXPECT_NEAR(c.apply(std::vector<double>{-1, -2})[1], -2 - std::log(0.3), 1e-12);

  // With length normalisation the correction is made to log p / tokens: (log p - bias) / norm = log p / tokens - b.
  const Calibration by_length = calibrate(CalibrationKind::kContentFree, true, rows, tokens).value();
  const auto p = [&](const LabelScores& r) { return softmax(std::vector<double>{r[0], r[1] / 2}); };
  const double b1 = std::log((p(rows[0])[1] + p(rows[1])[1]) / 2);
  EXPECT_NEAR(by_length.apply(std::vector<double>{-1, -3})[1], -1.5 - b1, 1e-12);
  EXPECT_EQ(by_length.scores.norm, (std::vector<double>{1, 2}));
}

TEST(Calibration, LabelsThatWereNotScored) {
  const std::vector<std::size_t> tokens{1, 1, 1};
  const std::vector<LabelScores> rows{{0, kOut, kOut}, {0, 0, kOut}};
  const Calibration c = calibrate(CalibrationKind::kBatchMean, false, rows, tokens).value();
  EXPECT_NEAR(c.scores.bias[0], std::log(0.75), 1e-12);
  EXPECT_NEAR(c.scores.bias[1], std::log(0.5), 1e-12);
  EXPECT_NEAR(c.scores.bias[2], (std::log(0.75) + std::log(0.5)) / 2, 1e-12);  // never seen: the others' mean
  EXPECT_EQ(c.apply(rows[0])[1], kOut);
  EXPECT_EQ(softmax(c.apply(rows[0]))[0], 1.0);
  expect_error(calibrate(CalibrationKind::kBatchMean, false, {}, tokens), ErrorCode::kInvalidArgument, "no scores");
}

TEST(Calibration, ChoosesByTheMetricAndPrefersTheSimplest) {
  // Label 0 is always favoured by 2 nats; the truth is in the differences.
  const std::vector<std::size_t> tokens{1, 1};
  const std::vector<LabelScores> validation{{0, -1}, {0, -3}, {0, -1.5}, {0, -2.8}};
  const std::vector<std::int32_t> truth{1, 0, 1, 0};
  const PredictionMetric accuracy = [&](std::span<const std::int32_t> predicted) {
    double right = 0;
    for (std::size_t i = 0; i < truth.size(); ++i) right += predicted[i] == truth[i] ? 1 : 0;
    return right / static_cast<double>(truth.size());
  };
  std::vector<CalibrationTrial> trials;
  const Calibration c =
      choose_calibration(validation, std::vector<LabelScores>{{0, -9}}, tokens, accuracy, &trials).value();
  EXPECT_EQ(c.kind, CalibrationKind::kBatchMean);
  EXPECT_FALSE(c.length_normalised);
  EXPECT_EQ(trials.size(), 6u);
  EXPECT_EQ(trials[0].value, 0.5);
  EXPECT_EQ(choose_calibration(validation, {}, tokens, [](auto) { return 1.0; }).value().kind, CalibrationKind::kNone);
}

TEST(Calibration, SurvivesJson) {
  Calibration c{.kind = CalibrationKind::kContentFree,
                .length_normalised = true,
                .scores = {.bias = {-1.25, 1.0 / 3}, .norm = {2, 3}}};
  const Calibration back = Calibration::from_json(parse_json(dump_json(c.to_json()), "test").value()).value();
  EXPECT_EQ(back.scores.bias, c.scores.bias);  // to the last bit
  EXPECT_EQ(back.kind, c.kind);
  EXPECT_TRUE(back.length_normalised);
  Json broken = c.to_json();
  broken["norm"] = std::vector<double>{2, 0};
  expect_error(Calibration::from_json(broken), ErrorCode::kCorruptData, "calibration");
  broken["kind"] = "guess";
  expect_error(Calibration::from_json(broken), ErrorCode::kCorruptData, "calibration");
}

TEST(Demonstrations, RandomOnesAreStratifiedAndRepeatable) {
  std::vector<std::int32_t> labels;
  for (int i = 0; i < 300; ++i) labels.push_back(i < 280 ? 0 : i < 290 ? 1 : 2);
  Rng one(5), same(5), other(6);
  const std::vector<std::size_t> chosen = random_demonstrations(labels, 7, one);
  ASSERT_EQ(chosen.size(), 7u);
  std::vector<int> counts(3);
  for (const std::size_t row : chosen) ++counts[static_cast<std::size_t>(labels[row])];
  for (const int n : counts) EXPECT_GE(n, 2);
  EXPECT_EQ(chosen, random_demonstrations(labels, 7, same));
  EXPECT_NE(chosen, random_demonstrations(labels, 7, other));
  EXPECT_EQ(random_demonstrations(labels, 1000, one).size(), 300u);
  EXPECT_TRUE(random_demonstrations({}, 5, one).empty());
}

TEST(Demonstrations, RetrievedStandNearestLast) {
  const std::vector<std::size_t> neighbours{9, 4, 7};
  EXPECT_EQ(retrieved_demonstrations(neighbours, 2), (std::vector<std::size_t>{4, 9}));
  EXPECT_EQ(retrieved_demonstrations(neighbours, 5), (std::vector<std::size_t>{7, 4, 9}));
  const std::vector<std::int32_t> labels{0, 0, 0, 0, 3, 0, 0, 1, 0, 3};
  EXPECT_EQ(labels_of(neighbours, labels), (std::vector<std::int32_t>{1, 3}));
  EXPECT_TRUE(labels_of({}, labels).empty());
}

}  // namespace
}  // namespace tailor
