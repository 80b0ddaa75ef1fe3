#include "eval/calibration.h"

#include <gtest/gtest.h>

#include <cmath>

#include "core/result.h"
#include "eval/eval_golden.h"
#include "eval/latency.h"
#include "eval/metrics.h"

namespace tailor {
namespace {

struct Case {
  std::vector<int> truth;
  Matrix p;
  std::vector<int> predicted;
};

Case golden_case(const Json& c) {
  Case out{numbers<int>(c["truth"]), Matrix(c["truth"].size(), c["classes"].get<std::size_t>()), {}};
  out.p.data = numbers<float>(c["probabilities"]);
  out.predicted = argmax_rows(out.p);
  return out;
}

TEST(Calibration, EqualsNumpyAndScipy) {
  const Json golden = eval_golden();
  for (const Json& c : golden["cases"]) {
    const Case rows = golden_case(c);
    const Json& want = c["calibration"];
    const auto bins = reliability_bins(rows.truth, rows.p, 15);
    double ece = 0;
    for (std::size_t b = 0; b < bins.size(); ++b) {
      EXPECT_EQ(bins[b].rows, want["bin_rows"][b].get<std::int64_t>());
      EXPECT_NEAR(bins[b].mean_confidence, want["bin_confidence"][b].get<double>(), 1e-9);
      EXPECT_NEAR(bins[b].accuracy, want["bin_accuracy"][b].get<double>(), 1e-9);
      ece += static_cast<double>(bins[b].rows) * std::abs(bins[b].accuracy - bins[b].mean_confidence);
    }
    EXPECT_NEAR(ece / static_cast<double>(rows.truth.size()), expected_calibration_error(rows.truth, rows.p), 1e-9);
    const auto confidence = confidences(rows.p);
    EXPECT_NEAR(area_under_risk_coverage(rows.truth, rows.predicted, confidence), want["aurc"].get<double>(), 1e-9);
    EXPECT_NEAR(confidence_auroc(rows.truth, rows.predicted, confidence), want["auroc"].get<double>(), 1e-9);
    const double temperature = fit_temperature(rows.truth, rows.p);
    EXPECT_NEAR(temperature, want["temperature"].get<double>(), 1e-4 * temperature);
    const Matrix scaled = apply_temperature(rows.p, temperature);
    EXPECT_NEAR(log_loss(rows.truth, scaled), want["scaled_log_loss"].get<double>(), 1e-6);
    EXPECT_EQ(argmax_rows(scaled), rows.predicted);
  }
}

TEST(Calibration, CoverageKeepsTiesTogetherAndFindsTheThreshold) {
  const std::vector<int> truth = {0, 0, 0, 0, 0};
  const std::vector<int> predicted = {0, 0, 1, 0, 1};
  const std::vector<double> confidence = {0.9, 0.8, 0.8, 0.6, 0.5};
  const auto curve = risk_coverage(truth, predicted, confidence);
  ASSERT_EQ(curve.size(), 4u);
  EXPECT_DOUBLE_EQ(curve[1].coverage, 0.6);
  EXPECT_DOUBLE_EQ(curve[1].accuracy, 2.0 / 3.0);
  EXPECT_DOUBLE_EQ(curve[3].coverage, 1.0);
  const auto point = threshold_for_accuracy(truth, predicted, confidence, 0.7).value();
  EXPECT_DOUBLE_EQ(point.threshold, 0.6);
  EXPECT_DOUBLE_EQ(point.coverage, 0.8);
  EXPECT_DOUBLE_EQ(point.accuracy, 0.75);
  EXPECT_FALSE(threshold_for_accuracy(truth, predicted, std::vector<double>{0.1, 0.2, 0.9, 0.1, 0.9}, 0.9));
  const auto thin = risk_coverage(truth, predicted, confidence, 2);
  ASSERT_EQ(thin.size(), 2u);
  EXPECT_DOUBLE_EQ(thin[0].coverage, 0.6);
  EXPECT_DOUBLE_EQ(thin[1].coverage, 1.0);
  EXPECT_TRUE(risk_coverage({}, {}, {}).empty());
  EXPECT_THROW(risk_coverage(truth, predicted, {}), Exception);
}

TEST(Calibration, TemperatureAtItsBounds) {
  Matrix p(2, 2);
  p.data = {0.9f, 0.1f, 0.2f, 0.8f};
  EXPECT_DOUBLE_EQ(fit_temperature(std::vector<int>{0, 1}, p), 0.05);  // all right: as sure as allowed
  EXPECT_DOUBLE_EQ(fit_temperature(std::vector<int>{1, 0}, p), 20.0);
  EXPECT_DOUBLE_EQ(fit_temperature({}, Matrix(0, 2)), 1.0);
  Matrix certain(1, 3);
  certain.data = {1, 0, 0};
  EXPECT_EQ(apply_temperature(certain, 3).data, certain.data);
  EXPECT_THROW(apply_temperature(p, 0), Exception);
}

TEST(Calibration, OutOfScope) {
  const std::vector<int> truth = {2, 2, 2, 2, 0, 1, 0, 1};
  const std::vector<int> predicted = {2, 2, 2, 0, 0, 2, 1, 1};
  const auto o = out_of_scope(truth, predicted, 2);
  EXPECT_EQ(o.rows, 4);
  EXPECT_DOUBLE_EQ(o.recall, 0.75);
  EXPECT_DOUBLE_EQ(o.precision, 0.75);
  EXPECT_DOUBLE_EQ(o.in_scope_accuracy, 0.5);
  EXPECT_DOUBLE_EQ(o.false_alarms, 0.25);
  EXPECT_EQ(out_of_scope(truth, predicted, 7).recall, 0);
}

TEST(Latency, NearestRankEqualsNumpysInvertedCdf) {
  const Json golden = eval_golden();
  const auto values = numbers<double>(golden["latency"]["values"]);
  for (const auto& [percent, want] : golden["latency"]["percentiles"].items()) {
    EXPECT_EQ(percentile(values, std::stod(percent)), want.get<double>()) << percent;
  }
  const auto s = summarise_latency(values);
  EXPECT_EQ(s.p95, percentile(values, 95));
  EXPECT_EQ(s.n, 20);
  EXPECT_EQ(percentile({}, 50), 0);
  EXPECT_EQ(summarise_latency({}).n, 0);
  EXPECT_NEAR(cost_per_thousand(0.036, 0.5), 0.005, 1e-15);
}

}  // namespace
}  // namespace tailor
