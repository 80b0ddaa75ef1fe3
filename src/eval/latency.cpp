#include "eval/latency.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

namespace tailor {

double percentile(std::span<const double> values, double percent) {
  if (values.empty()) return 0;
  std::vector<double> sorted(values.begin(), values.end());
  // 1e-9: 0.95 * 20 must be the 19th value, not the 20th.
  const double rank = std::ceil(std::clamp(percent, 0.0, 100.0) / 100.0 * static_cast<double>(sorted.size()) - 1e-9);
  const auto at = static_cast<std::ptrdiff_t>(std::max(rank, 1.0)) - 1;
  std::nth_element(sorted.begin(), sorted.begin() + at, sorted.end());
  return sorted[static_cast<std::size_t>(at)];
}

LatencySummary summarise_latency(std::span<const double> values) {
  if (values.empty()) return {};
  return {static_cast<std::int64_t>(values.size()),
          std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size()),
          percentile(values, 50), percentile(values, 95), *std::max_element(values.begin(), values.end())};
}

double cost_per_thousand(double seconds, double price_per_hour) {
  return 1000.0 * seconds * price_per_hour / 3600.0;
}

}  // namespace tailor
