// The kernel of infer/packed_matrix.h for processors with AVX-512 VNNI; the compiler's flags are in CMakeLists.txt. No
// header of the library here: its inline functions would be compiled for these instructions, and the linker might keep
// them for all.
#include <immintrin.h>

#include "infer/packed_kernel.h"

namespace tailor::packed {
namespace {

/// Sixteen rows times four bytes, `group` of eight, of one block.
template <int F>
inline __m512i weights_of(const std::uint8_t* block, int group) {
  if constexpr (F == kQ8_0) return _mm512_loadu_si512(block + group * 64);
  const __m512i both = _mm512_loadu_si512(block + (group & 3) * 64);
  const __m512i low = _mm512_set1_epi8(0x0F);
  return _mm512_and_si512(group < 4 ? both : _mm512_srli_epi16(both, 4), low);
}

/// M tokens by R times sixteen rows.
template <int F, int M, int R>
void tile(const Product& p, std::int64_t row, std::int64_t token) {
  const std::int64_t blocks = p.width / kBlock;
  __m512 sums[M][R];
  for (int m = 0; m < M; ++m) {
    for (int r = 0; r < R; ++r) sums[m][r] = _mm512_setzero_ps();
  }
  const std::int8_t* const values = p.bytes.values + token * p.width;
  for (std::int64_t b = 0; b < blocks; ++b) {
    __m512i products[M][R];
    for (int m = 0; m < M; ++m) {
      const __m512i start = _mm512_set1_epi32(-kZero<F> * p.bytes.sums[(token + m) * blocks + b]);
      for (int r = 0; r < R; ++r) products[m][r] = start;
    }
#pragma GCC unroll 8
    for (int group = 0; group < 8; ++group) {
      __m512i w[R];
      for (int r = 0; r < R; ++r) w[r] = weights_of<F>(p.weights + ((row + r) * blocks + b) * kBytes<F>, group);
      for (int m = 0; m < M; ++m) {
        std::int32_t four;
        __builtin_memcpy(&four, values + m * p.width + b * kBlock + group * 4, sizeof four);
        const __m512i x = _mm512_set1_epi32(four);
        for (int r = 0; r < R; ++r) products[m][r] = _mm512_dpbusd_epi32(products[m][r], w[r], x);
      }
    }
    for (int r = 0; r < R; ++r) {
      const std::int64_t at = ((row + r) * blocks + b) * kRows;
      const __m512 factor = _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p.factors + at)));
      __m512 lowest = _mm512_setzero_ps();
      if constexpr (F == kQ4_1)
        lowest = _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p.lowest + at)));
      for (int m = 0; m < M; ++m) {
        const float scale = p.bytes.factors[(token + m) * blocks + b];
        sums[m][r] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(products[m][r]), _mm512_mul_ps(factor, _mm512_set1_ps(scale)),
                                     sums[m][r]);
        if constexpr (F == kQ4_1) {
          const float sum = scale * static_cast<float>(p.bytes.sums[(token + m) * blocks + b]);
          sums[m][r] = _mm512_fmadd_ps(lowest, _mm512_set1_ps(sum), sums[m][r]);
        }
      }
    }
  }
  for (int m = 0; m < M; ++m) {
    for (int r = 0; r < R; ++r) _mm512_storeu_ps(p.out + (token + m) * p.rows + (row + r) * kRows, sums[m][r]);
  }
}

/// `tokens` of them, at most M, by R times sixteen rows.
template <int F, int M, int R>
void some_tokens(const Product& p, std::int64_t row, std::int64_t token, std::int64_t tokens) {
  if constexpr (M > 1) {
    if (tokens < M) return some_tokens<F, M - 1, R>(p, row, token, tokens);
  }
  tile<F, M, R>(p, row, token);
}

/// All tokens by R times sixteen rows, in pieces of about the same size.
template <int F, int R>
void stripe(const Product& p, std::int64_t row) {
  constexpr std::int64_t kMost = R == 1 ? 10 : R == 2 ? 6 : R == 4 ? 2 : 1;  // whose sums fit into registers
  for (std::int64_t token = 0; token < p.tokens;) {
    const std::int64_t left = p.tokens - token, pieces = (left + kMost - 1) / kMost,
                       count = (left + pieces - 1) / pieces;
    some_tokens<F, kMost, R>(p, row, token, count);
    token += count;
  }
}

template <int F>
void rows_of(const Product& p, std::int64_t first, std::int64_t last) {
  std::int64_t row = first;
  // Few tokens do not hide the time that an instruction takes; more rows do.
  if (p.tokens == 1) {
    for (; row + 8 <= last; row += 8) stripe<F, 8>(p, row);
  }
  if (p.tokens <= 2) {
    for (; row + 4 <= last; row += 4) stripe<F, 4>(p, row);
  }
  for (; row + 2 <= last; row += 2) stripe<F, 2>(p, row);
  for (; row < last; ++row) stripe<F, 1>(p, row);
}

void multiply_rows(const Product& p, std::int64_t first, std::int64_t last) {
  if (p.format == kQ8_0) return rows_of<kQ8_0>(p, first, last);
  if (p.format == kQ4_0) return rows_of<kQ4_0>(p, first, last);
  return rows_of<kQ4_1>(p, first, last);
}

void quantize(const float* values, std::int64_t width, std::int64_t tokens, const Bytes& to) {
  const __m512 sign = _mm512_set1_ps(-0.0f);
  for (std::int64_t block = 0; block < tokens * width / kBlock; ++block) {
    const __m512 a = _mm512_loadu_ps(values + block * kBlock), b = _mm512_loadu_ps(values + block * kBlock + 16);
    const float most = _mm512_reduce_max_ps(_mm512_max_ps(_mm512_andnot_ps(sign, a), _mm512_andnot_ps(sign, b)));
    const __m512 scale = _mm512_set1_ps(most > 0 ? 127.0f / most : 0.0f);
    const __m512i x = _mm512_cvtps_epi32(_mm512_mul_ps(a, scale)), y = _mm512_cvtps_epi32(_mm512_mul_ps(b, scale));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to.values + block * kBlock), _mm512_cvtsepi32_epi8(x));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to.values + block * kBlock + 16), _mm512_cvtsepi32_epi8(y));
    to.factors[block] = most / 127.0f;
    to.sums[block] = _mm512_reduce_add_epi32(_mm512_add_epi32(x, y));
  }
}

}  // namespace

const Kernel& kernel_vnni() {
  static constexpr Kernel kKernel = {quantize, multiply_rows};
  return kKernel;
}

}  // namespace tailor::packed
