#include "infer/log_softmax.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

namespace tailor {
namespace {

/// exp(x) for x <= 0: 2^n * p(r), r in [-ln2/2, ln2/2], the polynomial of Cephes' expf. No branches: GCC vectorises it.
inline float exp_nonpositive(float x) {
  x = std::max(x, -87.0f);
  const float shifted = x * 1.44269504f + 12582912.0f;  // rounds to an integer in the low mantissa bits
  const float n = shifted - 12582912.0f;
  const float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * (r * r) + r + 1.0f;
  const auto exponent = std::bit_cast<std::uint32_t>(shifted) << 23;
  return std::bit_cast<float>(std::bit_cast<std::uint32_t>(p) + exponent);
}

constexpr std::size_t kLanes = 16;

}  // namespace

double log_sum_exp(std::span<const float> x) {
  if (x.empty()) return -std::numeric_limits<double>::infinity();
  const std::size_t whole = x.size() / kLanes * kLanes;
  float maxima[kLanes];
  std::fill_n(maxima, kLanes, -std::numeric_limits<float>::infinity());
  for (std::size_t i = 0; i < whole; i += kLanes) {
    for (std::size_t k = 0; k < kLanes; ++k) maxima[k] = x[i + k] > maxima[k] ? x[i + k] : maxima[k];
  }
  float maximum = *std::max_element(maxima, maxima + kLanes);
  for (std::size_t i = whole; i < x.size(); ++i) maximum = std::max(maximum, x[i]);
  if (!std::isfinite(maximum)) return maximum;

  constexpr std::size_t kBlock = 64 * kLanes;
  double sum = 0;
  for (std::size_t first = 0; first < whole; first += kBlock) {
    float sums[kLanes] = {};
    const std::size_t last = std::min(whole, first + kBlock);
    for (std::size_t i = first; i < last; i += kLanes) {
      for (std::size_t k = 0; k < kLanes; ++k) sums[k] += exp_nonpositive(x[i + k] - maximum);
    }
    for (const float s : sums) sum += s;
  }
  for (std::size_t i = whole; i < x.size(); ++i) sum += std::exp(x[i] - maximum);
  return maximum + std::log(sum);
}

}  // namespace tailor
