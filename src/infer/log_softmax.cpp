#include "infer/log_softmax.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/fast_math.h"

namespace tailor {
namespace {

constexpr std::size_t kLanes = 16;

}  // namespace

TAILOR_ALSO_FOR_AVX2 double log_sum_exp(std::span<const float> x) {
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
