#include "eval/intervals.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "core/rng.h"
#include "eval/statistics.h"

namespace tailor {
namespace {

void check(const BootstrapOptions& o) {
  if (o.resamples < 1 || !(o.confidence > 0 && o.confidence < 1)) {
    throw Exception(
        {ErrorCode::kInvalidArgument,
         fmt::format("a bootstrap needs at least one resample and a confidence between 0 and 1, not {} and {}",
                     o.resamples, o.confidence),
         ""});
  }
}

Interval percentile_interval(double value, std::vector<double>& draws, double confidence) {
  std::sort(draws.begin(), draws.end());
  return {value, linear_quantile(draws, 0.5 * (1 - confidence)), linear_quantile(draws, 0.5 * (1 + confidence))};
}

/// Calls use(tally, summed cost) for each resample.
template <typename Use>
void resample(const Metric& metric, std::span<const int> truth, std::span<const int> predicted, int classes,
              const BootstrapOptions& options, const Use& use) {
  struct Row {
    int truth;
    int predicted;
    double cost;
  };
  std::vector<Row> rows(truth.size());
  for (std::size_t i = 0; i < rows.size(); ++i) {
    rows[i] = {truth[i], predicted[i], metric.row_cost(truth[i], predicted[i])};
  }
  Tally t;
  for (int b = 0; b < options.resamples; ++b) {
    Rng rng(options.seed, static_cast<std::uint64_t>(b));
    t.reset(classes);
    double cost = 0;
    for (std::size_t i = 0; i < rows.size(); ++i) {
      const Row& row = rows[rng.below(rows.size())];
      t.add(row.truth, row.predicted);
      cost += row.cost;
    }
    use(t, cost);
  }
}

}  // namespace

ScoreIntervals bootstrap_scores(std::span<const int> truth, std::span<const int> predicted, int classes,
                                const BootstrapOptions& options) {
  check(options);
  const Tally all = tally(truth, predicted, classes);
  if (truth.empty()) return {};
  std::vector<double> acc, precision, recall, f1;
  resample(Metric::accuracy(), truth, predicted, classes, options, [&](const Tally& t, double) {
    const auto macro = macro_average(t);
    acc.push_back(accuracy(t));
    precision.push_back(macro.precision);
    recall.push_back(macro.recall);
    f1.push_back(macro.f1);
  });
  const auto macro = macro_average(all);
  const double c = options.confidence;
  ScoreIntervals out{percentile_interval(accuracy(all), acc, c), percentile_interval(macro.precision, precision, c),
                     percentile_interval(macro.recall, recall, c), percentile_interval(macro.f1, f1, c)};
  if (all.rows < options.wilson_below) out.accuracy = wilson_interval(all.correct, all.rows, c);
  return out;
}

Interval bootstrap_metric(const Metric& metric, std::span<const int> truth, std::span<const int> predicted, int classes,
                          const BootstrapOptions& options) {
  check(options);
  const double value = metric.score(truth, predicted, classes);
  if (truth.empty()) return {};
  const auto rows = static_cast<std::int64_t>(truth.size());
  if (metric.kind() == Metric::Kind::kAccuracy && rows < options.wilson_below) {
    return wilson_interval(tally(truth, predicted, classes).correct, rows, options.confidence);
  }
  std::vector<double> draws;
  resample(metric, truth, predicted, classes, options,
           [&](const Tally& t, double cost) { draws.push_back(metric.score(t, cost)); });
  return percentile_interval(value, draws, options.confidence);
}

Interval wilson_interval(std::int64_t successes, std::int64_t n, double confidence) {
  if (n <= 0) return {0, 0, 1};
  const auto m = static_cast<double>(n);
  const double p = static_cast<double>(successes) / m;
  const double z = normal_quantile(0.5 * (1 + confidence));
  const double z2 = z * z;
  const double centre = (p + z2 / (2 * m)) / (1 + z2 / m);
  const double half = z / (1 + z2 / m) * std::sqrt(p * (1 - p) / m + z2 / (4 * m * m));
  return {p, std::max(0.0, centre - half), std::min(1.0, centre + half)};
}

Json to_json(const ScoreIntervals& scores) {
  const auto interval = [](const Interval& i) { return Json{{"value", i.value}, {"low", i.low}, {"high", i.high}}; };
  return Json{{"accuracy", interval(scores.accuracy)},
              {"macro_precision", interval(scores.macro_precision)},
              {"macro_recall", interval(scores.macro_recall)},
              {"macro_f1", interval(scores.macro_f1)}};
}

}  // namespace tailor
