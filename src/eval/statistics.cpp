#include "eval/statistics.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>

namespace tailor {

double linear_quantile(std::span<const double> sorted, double q) {
  if (sorted.empty()) return std::numeric_limits<double>::quiet_NaN();
  const double position = std::clamp(q, 0.0, 1.0) * static_cast<double>(sorted.size() - 1);
  const auto low = static_cast<std::size_t>(position);
  const auto high = std::min(low + 1, sorted.size() - 1);
  return sorted[low] + (sorted[high] - sorted[low]) * (position - static_cast<double>(low));
}

double normal_quantile(double p) {
  // Start: Odeh and Evans 1974 via the tail t; good to 4.5e-4, then Newton on erfc.
  const double tail = std::min(p, 1.0 - p);
  const double t = std::sqrt(-2.0 * std::log(tail));
  double z = t - (2.515517 + t * (0.802853 + t * 0.010328)) / (1.0 + t * (1.432788 + t * (0.189269 + t * 0.001308)));
  for (int i = 0; i < 4; ++i) {
    const double upper = 0.5 * std::erfc(z / std::numbers::sqrt2);
    const double density = std::exp(-0.5 * z * z) / std::sqrt(2.0 * std::numbers::pi);
    if (density == 0) break;
    z += (upper - tail) / density;
  }
  return p < 0.5 ? -z : z;
}

double binomial_half_pmf(std::int64_t k, std::int64_t n) {
  if (k < 0 || k > n) return 0;
  const auto x = static_cast<double>(k);
  const auto m = static_cast<double>(n);
  return std::exp(std::lgamma(m + 1) - std::lgamma(x + 1) - std::lgamma(m - x + 1) - m * std::numbers::ln2);
}

double binomial_half_cdf(std::int64_t k, std::int64_t n) {
  double sum = 0;
  for (std::int64_t i = 0; i <= std::min(k, n); ++i) sum += binomial_half_pmf(i, n);
  return std::min(sum, 1.0);
}

double chi_squared_1_tail(double x) {
  return x <= 0 ? 1.0 : std::erfc(std::sqrt(0.5 * x));
}

}  // namespace tailor
