#pragma once
/// Eight floats at a time with GCC's vector types: exp, GELU, a hash for dropout, and a small matrix product. For
/// kernel files only. Everything is always_inline, so that no vector crosses a function border (its ABI depends on the
/// flags).

#include <cstdint>
#include <cstring>

namespace tailor::tune::simd {

using F8 = float __attribute__((vector_size(32)));
using I8 = std::int32_t __attribute__((vector_size(32)));
using U8 = std::uint32_t __attribute__((vector_size(32)));

#define TAILOR_INLINE inline __attribute__((always_inline))

TAILOR_INLINE F8 load(const float* p) {
  F8 v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
TAILOR_INLINE void store(float* p, F8 v) {
  std::memcpy(p, &v, sizeof v);
}
TAILOR_INLINE F8 splat(float x) {
  return F8{x, x, x, x, x, x, x, x};
}
/// The first n of 8 (the others 0), for the end of a row.
TAILOR_INLINE F8 load_part(const float* p, std::int64_t n) {
  if (n >= 8) return load(p);  // a memcpy of fixed size is one instruction
  F8 v = {};
  std::memcpy(&v, p, static_cast<std::size_t>(n) * sizeof(float));
  return v;
}
TAILOR_INLINE void store_part(float* p, F8 v, std::int64_t n) {
  if (n >= 8) return store(p, v);
  std::memcpy(p, &v, static_cast<std::size_t>(n) * sizeof(float));
}
TAILOR_INLINE float sum(F8 v) {
  return ((v[0] + v[4]) + (v[1] + v[5])) + ((v[2] + v[6]) + (v[3] + v[7]));
}
TAILOR_INLINE F8 maximum(F8 a, F8 b) {
  return a > b ? a : b;
}
TAILOR_INLINE F8 absolute(F8 a) {
  return (F8)((I8)a & 0x7fffffff);
}

/// exp with a relative error below 2e-7 (Cephes expf: range reduction by ln 2, degree-5 polynomial). Below -87: about
/// 0.
TAILOR_INLINE F8 exp(F8 x) {
  x = x < -87.3f ? splat(-87.3f) : x;
  x = x > 88.0f ? splat(88.0f) : x;
  // The nearest whole number, by a conversion: adding and taking away a large one would not survive reassociation.
  const F8 scaled = x * 1.44269504088896341f;
  const I8 whole = __builtin_convertvector(scaled + (scaled < 0.0f ? splat(-0.5f) : splat(0.5f)), I8);
  const F8 n = __builtin_convertvector(whole, F8);
  F8 r = x - n * 0.693359375f;
  r = r + n * 2.12194440e-4f;
  F8 p = r * 1.9875691500e-4f + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * (r * r) + r + 1.0f;
  const I8 exponent = (whole + 127) << 23;
  return p * (F8)exponent;
}

/// Normal distribution function and density at x; erf by Abramowitz and Stegun 7.1.26 (absolute error 1.5e-7).
struct Normal {
  F8 cdf, density;
};
TAILOR_INLINE Normal normal(F8 x) {
  const F8 e = exp(x * x * -0.5f);
  const F8 t = 1.0f / (absolute(x) * (0.3275911f * 0.70710678f) + 1.0f);
  F8 p = t * 1.061405429f - 1.453152027f;
  p = p * t + 1.421413741f;
  p = p * t - 0.284496736f;
  p = p * t + 0.254829592f;
  const F8 tail = p * t * e * 0.5f;  // 1 - Phi(|x|)
  return {x < 0.0f ? tail : 1.0f - tail, e * 0.39894228f};
}

/// Wellons' lowbias32 of index ^ seed: a dropout mask that needs no memory and no order.
TAILOR_INLINE U8 hash(U8 index, std::uint32_t seed) {
  U8 h = index ^ seed;
  h = (h ^ (h >> 16)) * 0x7feb352du;
  h = (h ^ (h >> 15)) * 0x846ca68bu;
  return h ^ (h >> 16);
}

/// A dropout site: element i is kept where hash(i) >= threshold, and scaled by 1 / (1 - p).
struct Dropout {
  std::uint32_t seed = 0;
  std::uint32_t threshold = 0;  // p * 2^32; 0: no dropout
  float scale = 1;
};
TAILOR_INLINE F8 dropout_factor(const Dropout& d, std::uint32_t first_index) {
  const U8 index = U8{0, 1, 2, 3, 4, 5, 6, 7} + first_index;
  return (hash(index, d.seed) >= d.threshold) ? splat(d.scale) : splat(0.0f);
}

/// C[MR, 8 NV] (+)= A[MR, k] B[k, 8 NV]; A has any strides, B and C have unit column stride.
template <int MR, int NV>
TAILOR_INLINE void product_block(std::int64_t k, const float* a, std::int64_t a_row, std::int64_t a_col, const float* b,
                                 std::int64_t ldb, float* c, std::int64_t ldc, bool add) {
  F8 acc[MR][NV];
  for (int i = 0; i < MR; ++i) {
    for (int j = 0; j < NV; ++j) acc[i][j] = add ? load(c + i * ldc + 8 * j) : F8{};
  }
  for (std::int64_t l = 0; l < k; ++l) {
    F8 bv[NV];
    for (int j = 0; j < NV; ++j) bv[j] = load(b + l * ldb + 8 * j);
    for (int i = 0; i < MR; ++i) {
      const F8 av = splat(a[i * a_row + l * a_col]);
      for (int j = 0; j < NV; ++j) acc[i][j] += av * bv[j];
    }
  }
  for (int i = 0; i < MR; ++i) {
    for (int j = 0; j < NV; ++j) store(c + i * ldc + 8 * j, acc[i][j]);
  }
}

template <int NV>
TAILOR_INLINE void product_column(std::int64_t m, std::int64_t k, const float* a, std::int64_t a_row,
                                  std::int64_t a_col, const float* b, std::int64_t ldb, float* c, std::int64_t ldc,
                                  bool add) {
  std::int64_t i = 0;
  for (; i + 6 <= m; i += 6) product_block<6, NV>(k, a + i * a_row, a_row, a_col, b, ldb, c + i * ldc, ldc, add);
  for (; i + 2 <= m; i += 2) product_block<2, NV>(k, a + i * a_row, a_row, a_col, b, ldb, c + i * ldc, ldc, add);
  for (; i < m; ++i) product_block<1, NV>(k, a + i * a_row, a_row, a_col, b, ldb, c + i * ldc, ldc, add);
}

/// C[m, n] (+)= A[m, k] B[k, n], n a multiple of 8; for operands that fit the cache.
inline void product(std::int64_t m, std::int64_t n, std::int64_t k, const float* a, std::int64_t a_row,
                    std::int64_t a_col, const float* b, std::int64_t ldb, float* c, std::int64_t ldc, bool add) {
  std::int64_t j = 0;
  for (; j + 16 <= n; j += 16) product_column<2>(m, k, a, a_row, a_col, b + j, ldb, c + j, ldc, add);
  for (; j < n; j += 8) product_column<1>(m, k, a, a_row, a_col, b + j, ldb, c + j, ldc, add);
}

#undef TAILOR_INLINE

}  // namespace tailor::tune::simd
