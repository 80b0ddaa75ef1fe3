#pragma once
/// Intervals around scores: how far another test set of the same size might have moved the figure.

#include <cstdint>
#include <span>

#include "core/json.h"
#include "eval/metric.h"

namespace tailor {

struct Interval {
  double value = 0;
  double low = 0;
  double high = 0;
};

struct ScoreIntervals {
  Interval accuracy;
  Interval macro_precision;
  Interval macro_recall;
  Interval macro_f1;
};

/// {"accuracy": {"value", "low", "high"}, "macro_precision": …, "macro_recall": …, "macro_f1": …}
Json to_json(const ScoreIntervals& scores);

struct BootstrapOptions {
  int resamples = 2000;      // >= 1; time grows linearly: 2,000 x 3,080 rows take about 0.03 s
  double confidence = 0.95;  // in (0, 1)
  std::uint64_t seed = 0;    // resample b draws from Rng(seed, b): the same rows for every candidate
  int wilson_below = 0;      // accuracy from fewer rows gets Wilson's interval instead; 0: never
};

/// Percentile bootstrap over rows (Efron 1979), not stratified: rows are drawn with replacement, the scores of each
/// draw are sorted, and the interval runs between their (1 - confidence) / 2 and (1 + confidence) / 2 quantiles (linear
/// interpolation). Deterministic. Empty input gives zeros.
ScoreIntervals bootstrap_scores(std::span<const int> truth, std::span<const int> predicted, int classes,
                                const BootstrapOptions& options = {});
Interval bootstrap_metric(const Metric& metric, std::span<const int> truth, std::span<const int> predicted, int classes,
                          const BootstrapOptions& options = {});

/// Wilson's score interval of a proportion (Wilson 1927); sensible also for few rows and for none or all right.
Interval wilson_interval(std::int64_t successes, std::int64_t n, double confidence = 0.95);

}  // namespace tailor
