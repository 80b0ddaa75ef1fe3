// The kernel of infer/packed_matrix.h for processors with AVX2; the compiler's flags are in CMakeLists.txt. No header
// of the library here: its inline functions would be compiled for these instructions, and the linker might keep them
// for all.
//
// Products of bytes with numbers below sixteen stay within 16 bits for a whole block: 32 / 4 times 2 * 15 * 127. So
// they are widened once a block; a byte of Q8_0 is two such numbers.
#include <immintrin.h>

#include "infer/packed_kernel.h"

namespace tailor::packed {
namespace {

inline __m256i low_bits(__m256i bytes) {
  return _mm256_and_si256(bytes, _mm256_set1_epi8(0x0F));
}
inline __m256i high_bits(__m256i bytes) {
  return low_bits(_mm256_srli_epi16(bytes, 4));
}
/// Four values of a token, for each of eight rows.
inline __m256i four_values(const std::int8_t* values) {
  std::int32_t four;
  __builtin_memcpy(&four, values, sizeof four);
  return _mm256_set1_epi32(four);
}
inline __m256i add_products(__m256i sums, __m256i weights, __m256i values) {
  return _mm256_add_epi16(sums, _mm256_maddubs_epi16(weights, values));
}

/// M tokens by H times eight rows, of which the first is `half` (0 or 1) of the sixteen at `row`.
template <int F, int M, int H>
void tile(const Product& p, std::int64_t row, std::int64_t half, std::int64_t token) {
  const std::int64_t blocks = p.width / kBlock;
  __m256 sums[M][H];
  for (int m = 0; m < M; ++m) {
    for (int h = 0; h < H; ++h) sums[m][h] = _mm256_setzero_ps();
  }
  for (std::int64_t b = 0; b < blocks; ++b) {
    const std::int64_t at = row * blocks + b;
    const std::uint8_t* const weights = p.weights + at * kBytes<F> + half * 32;
    const std::int8_t* const values = p.bytes.values + token * p.width + b * kBlock;
    __m256i low[M][H], high[M][H];
    for (int m = 0; m < M; ++m) {
      for (int h = 0; h < H; ++h) low[m][h] = high[m][h] = _mm256_setzero_si256();
    }
#pragma GCC unroll 8
    for (int group = 0; group < (F == kQ8_0 ? 8 : 4); ++group) {
      __m256i w[H];
      for (int h = 0; h < H; ++h)
        w[h] = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(weights + group * 64 + h * 32));
      if constexpr (F == kQ8_0) {
        for (int h = 0; h < H; ++h) {
          const __m256i w_low = low_bits(w[h]), w_high = high_bits(w[h]);
          for (int m = 0; m < M; ++m) {
            const __m256i x = four_values(values + m * p.width + group * 4);
            low[m][h] = add_products(low[m][h], w_low, x);
            high[m][h] = add_products(high[m][h], w_high, x);
          }
        }
      } else {  // the second half of a block is in the high bits
        __m256i v[H];
        for (int h = 0; h < H; ++h) v[h] = low_bits(w[h]);
        for (int m = 0; m < M; ++m) {
          const __m256i x = four_values(values + m * p.width + group * 4);
          for (int h = 0; h < H; ++h) low[m][h] = add_products(low[m][h], v[h], x);
        }
        for (int h = 0; h < H; ++h) v[h] = high_bits(w[h]);
        for (int m = 0; m < M; ++m) {
          const __m256i x = four_values(values + m * p.width + group * 4 + 16);
          for (int h = 0; h < H; ++h) low[m][h] = add_products(low[m][h], v[h], x);
        }
      }
    }
    for (int h = 0; h < H; ++h) {
      const std::int64_t lanes = at * kRows + (half + h) * 8;
      const __m256 factor = _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p.factors + lanes)));
      __m256 lowest = _mm256_setzero_ps();
      if constexpr (F == kQ4_1)
        lowest = _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p.lowest + lanes)));
      for (int m = 0; m < M; ++m) {
        const std::int64_t place = (token + m) * blocks + b;
        __m256i product = _mm256_madd_epi16(low[m][h], _mm256_set1_epi16(1));
        if constexpr (F == kQ8_0)
          product = _mm256_add_epi32(product, _mm256_madd_epi16(high[m][h], _mm256_set1_epi16(16)));
        if constexpr (kZero<F> != 0)
          product = _mm256_sub_epi32(product, _mm256_set1_epi32(kZero<F> * p.bytes.sums[place]));
        const float scale = p.bytes.factors[place];
        sums[m][h] =
            _mm256_fmadd_ps(_mm256_cvtepi32_ps(product), _mm256_mul_ps(factor, _mm256_set1_ps(scale)), sums[m][h]);
        if constexpr (F == kQ4_1) {
          const float sum = scale * static_cast<float>(p.bytes.sums[place]);
          sums[m][h] = _mm256_fmadd_ps(lowest, _mm256_set1_ps(sum), sums[m][h]);
        }
      }
    }
  }
  for (int m = 0; m < M; ++m) {
    for (int h = 0; h < H; ++h)
      _mm256_storeu_ps(p.out + (token + m) * p.rows + row * kRows + (half + h) * 8, sums[m][h]);
  }
}

/// `tokens` of them, at most M, by sixteen rows.
template <int F, int M>
void some_tokens(const Product& p, std::int64_t row, std::int64_t token, std::int64_t tokens) {
  if constexpr (M > 1) {
    if (tokens < M) return some_tokens<F, M - 1>(p, row, token, tokens);
  }
  if constexpr (F == kQ8_0 && M > 3) {  // its sums for sixteen rows would not fit into registers
    tile<F, M, 1>(p, row, 0, token);
    tile<F, M, 1>(p, row, 1, token);
  } else {
    tile<F, M, 2>(p, row, 0, token);
  }
}

template <int F>
void rows_of(const Product& p, std::int64_t first, std::int64_t last) {
  constexpr std::int64_t kMost = 6;
  for (std::int64_t row = first; row < last; ++row) {
    for (std::int64_t token = 0; token < p.tokens;) {  // in pieces of about the same size
      const std::int64_t left = p.tokens - token, pieces = (left + kMost - 1) / kMost,
                         count = (left + pieces - 1) / pieces;
      some_tokens<F, kMost>(p, row, token, count);
      token += count;
    }
  }
}

void multiply_rows(const Product& p, std::int64_t first, std::int64_t last) {
  if (p.format == kQ8_0) return rows_of<kQ8_0>(p, first, last);
  if (p.format == kQ4_0) return rows_of<kQ4_0>(p, first, last);
  return rows_of<kQ4_1>(p, first, last);
}

inline __m128i folded(__m256i v, __m128i (*join)(__m128i, __m128i)) {
  __m128i x = join(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
  x = join(x, _mm_shuffle_epi32(x, 0x4E));
  return join(x, _mm_shuffle_epi32(x, 0xB1));
}

void quantize(const float* values, std::int64_t width, std::int64_t tokens, const Bytes& to) {
  // Of numbers without a sign the order is that of their bits.
  const __m256i no_sign = _mm256_set1_epi32(0x7FFFFFFF);
  for (std::int64_t block = 0; block < tokens * width / kBlock; ++block) {
    __m256 v[4];
    __m256i largest = _mm256_setzero_si256();
    for (int i = 0; i < 4; ++i) {
      v[i] = _mm256_loadu_ps(values + block * kBlock + i * 8);
      largest = _mm256_max_epi32(largest, _mm256_and_si256(_mm256_castps_si256(v[i]), no_sign));
    }
    const float most =
        _mm_cvtss_f32(_mm_castsi128_ps(folded(largest, [](__m128i a, __m128i b) { return _mm_max_epi32(a, b); })));
    const __m256 scale = _mm256_set1_ps(most > 0 ? 127.0f / most : 0.0f);
    __m256i n[4], sum = _mm256_setzero_si256();
    for (int i = 0; i < 4; ++i) {
      n[i] = _mm256_cvtps_epi32(_mm256_mul_ps(v[i], scale));
      sum = _mm256_add_epi32(sum, n[i]);
    }
    const __m256i bytes = _mm256_packs_epi16(_mm256_packs_epi32(n[0], n[1]), _mm256_packs_epi32(n[2], n[3]));
    // Packing goes by halves of 128 bits: fours of values are in the order 0 2 4 6 1 3 5 7.
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to.values + block * kBlock),
                        _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7)));
    to.factors[block] = most / 127.0f;
    to.sums[block] = _mm_cvtsi128_si32(folded(sum, [](__m128i a, __m128i b) { return _mm_add_epi32(a, b); }));
  }
}

}  // namespace

const Kernel& kernel_avx2() {
  static constexpr Kernel kKernel = {quantize, multiply_rows};
  return kKernel;
}

}  // namespace tailor::packed
