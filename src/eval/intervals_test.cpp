#include "eval/intervals.h"

#include <gtest/gtest.h>

#include "eval/eval_golden.h"
#include "eval/statistics.h"

namespace tailor {
namespace {

TEST(Intervals, BootstrapEqualsNumpyOnTheSameDraws) {
  const Json golden = eval_golden();
  const Json& g = golden["bootstrap"];
  const auto truth = numbers<int>(g["truth"]);
  const auto predicted = numbers<int>(g["predicted"]);
  const BootstrapOptions options{.resamples = g["resamples"].get<int>(), .seed = g["seed"].get<std::uint64_t>()};
  const auto got = bootstrap_scores(truth, predicted, 5, options);
  const Interval* intervals[] = {&got.accuracy, &got.macro_precision, &got.macro_recall, &got.macro_f1};
  for (std::size_t i = 0; i < 4; ++i) {
    EXPECT_NEAR(intervals[i]->value, g["value"][i].get<double>(), 1e-9);
    EXPECT_NEAR(intervals[i]->low, g["low"][i].get<double>(), 1e-9);
    EXPECT_NEAR(intervals[i]->high, g["high"][i].get<double>(), 1e-9);
  }
  const auto f1 = bootstrap_metric(Metric::macro_f1(), truth, predicted, 5, options);
  EXPECT_DOUBLE_EQ(f1.low, got.macro_f1.low);
  EXPECT_DOUBLE_EQ(f1.high, got.macro_f1.high);
}

TEST(Intervals, CostOfZeroOneEqualsErrorRate) {
  const std::vector<int> truth = {0, 0, 1, 1, 0, 1, 0, 1};
  const std::vector<int> predicted = {0, 1, 1, 0, 0, 1, 0, 1};
  const auto cost = bootstrap_metric(Metric::cost({0, 1, 1, 0}, 2), truth, predicted, 2);
  const auto accuracy = bootstrap_metric(Metric::accuracy(), truth, predicted, 2);
  EXPECT_NEAR(cost.low, accuracy.low - 1, 1e-12);
  EXPECT_NEAR(cost.high, accuracy.high - 1, 1e-12);
}

TEST(Intervals, WilsonEqualsScipy) {
  const Json golden = eval_golden();
  for (const Json& g : golden["wilson"]) {
    const auto got = wilson_interval(g["k"].get<std::int64_t>(), g["n"].get<std::int64_t>());
    EXPECT_NEAR(got.low, g["low"].get<double>(), 1e-9);
    EXPECT_NEAR(got.high, g["high"].get<double>(), 1e-9);
  }
}

TEST(Intervals, FewRowsMayTakeWilson) {
  const std::vector<int> all = {0, 1, 0, 1, 0};
  const auto plain = bootstrap_scores(all, all, 2);
  EXPECT_EQ(plain.accuracy.low, 1.0);  // resampling cannot see a mistake that did not happen
  const auto wilson = bootstrap_scores(all, all, 2, {.wilson_below = 100});
  EXPECT_LT(wilson.accuracy.low, 0.6);
  EXPECT_EQ(wilson.accuracy.high, 1.0);
}

TEST(Intervals, EmptyAndWrongOptions) {
  EXPECT_EQ(bootstrap_scores({}, {}, 2).accuracy.high, 0);
  EXPECT_THROW(bootstrap_scores({}, {}, 2, {.resamples = 0}), Exception);
  EXPECT_THROW(bootstrap_scores({}, {}, 2, {.confidence = 1.0}), Exception);
}

TEST(Statistics, NormalQuantilesEqualScipy) {
  const Json golden = eval_golden();
  for (const auto& [p, z] : golden["normal_quantiles"].items()) {
    EXPECT_NEAR(normal_quantile(std::stod(p)), z.get<double>(), 1e-9) << p;
  }
}

}  // namespace
}  // namespace tailor
