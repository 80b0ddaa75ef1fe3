#pragma once
/// Percentile bootstrap over rows, for scores that are computed from tallies.

#include <algorithm>
#include <functional>
#include <vector>

#include "core/rng.h"
#include "eval/intervals.h"
#include "eval/statistics.h"

namespace tailor {

/// Between which quantiles the draws lie; the value itself where there are none.
inline Interval percentiles(double value, std::vector<double> draws, double confidence) {
  if (draws.empty()) return {value, value, value};
  std::sort(draws.begin(), draws.end());
  return {value, linear_quantile(draws, (1 - confidence) / 2), linear_quantile(draws, (1 + confidence) / 2)};
}

inline Json to_json(const Interval& i) {
  return Json{{"value", i.value}, {"low", i.low}, {"high", i.high}};
}

/// Calls draw(rows of one resample) `options.resamples` times.
inline void resample(std::size_t rows, const BootstrapOptions& options,
                     const std::function<void(const std::vector<std::size_t>&)>& draw) {
  if (rows == 0) return;
  std::vector<std::size_t> chosen(rows);
  for (int b = 0; b < options.resamples; ++b) {
    Rng rng(options.seed, static_cast<std::uint64_t>(b));
    for (std::size_t& r : chosen) r = static_cast<std::size_t>(rng.below(rows));
    draw(chosen);
  }
}

}  // namespace tailor
