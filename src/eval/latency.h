#pragma once
/// Latency figures and what requests cost.

#include <cstdint>
#include <span>

namespace tailor {

/// Nearest rank: the smallest value such that at least `percent` of all values are not larger, i.e. the
/// ceil(percent / 100 * n)-th; always a value that was measured. percent in [0, 100]; 0 without values.
double percentile(std::span<const double> values, double percent);

struct LatencySummary {
  std::int64_t n = 0;
  double mean = 0;  // all in the unit of the values
  double p50 = 0;
  double p95 = 0;
  double max = 0;
};
LatencySummary summarise_latency(std::span<const double> values);

/// Price of 1,000 requests on a machine at `price_per_hour` that is busy `seconds` a request, one after another.
double cost_per_thousand(double seconds, double price_per_hour);

}  // namespace tailor
