#pragma once
/// Elementary functions without branches or tables, which the compiler vectorises in plain loops.

#include <algorithm>
#include <bit>
#include <cstdint>

// Before a function whose loops are hot: a build for processors without AVX2 compiles it for those with it as well, and
// the loader chooses. An attribute has no other name.
#if defined(__x86_64__) && defined(__gnu_linux__) && !defined(__AVX2__) && !defined(__SANITIZE_ADDRESS__) && \
    !defined(__SANITIZE_THREAD__)
#define TAILOR_ALSO_FOR_AVX2 [[gnu::target_clones("default", "avx2")]]
#else
#define TAILOR_ALSO_FOR_AVX2
#endif

namespace tailor {

/// exp(x) for x <= 0: 2^n p(r) with r in [-ln2/2, ln2/2] and the polynomial of Cephes' expf; relative error below 2e-7.
/// Below -87 it gives about 1e-38 instead of less.
inline float exp_nonpositive(float x) {
  x = std::max(x, -87.0f);
  const float shifted =
      x * 1.44269504f + 12582912.0f;  // 1.5 * 2^23: rounds to an integer, which the low bits then hold
  const float n = shifted - 12582912.0f;
  const float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  const auto exponent = std::bit_cast<std::uint32_t>(shifted) << 23;
  return std::bit_cast<float>(std::bit_cast<std::uint32_t>(p) + exponent);
}

/// GELU as BERT has it, x Phi(x), with erf by Abramowitz and Stegun 7.1.26 (absolute error below 2e-7 |x|).
inline float gelu(float x) {
  const float z = x * 0.70710678f;
  const float a = z < 0 ? -z : z;
  const float t = 1.0f / (1.0f + 0.3275911f * a);
  const float poly =
      ((((1.061405429f * t - 1.453152027f) * t + 1.421413741f) * t - 0.284496736f) * t + 0.254829592f) * t;
  const float tail = poly * exp_nonpositive(-a * a);  // 1 - erf(|z|)
  return 0.5f * x * (z < 0 ? tail : 2.0f - tail);
}

}  // namespace tailor
