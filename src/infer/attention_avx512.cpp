// The kernel of infer/attention.h for processors with AVX-512; the compiler's flags are in CMakeLists.txt.
#include "infer/attention_kernel.h"

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__FMA__)
#include <immintrin.h>

namespace tailor::attention {
namespace {
constexpr int kLanes = 16;
constexpr int kRegisters = 24;

inline float folded(__m512 v) {
  return _mm512_reduce_add_ps(v);
}
inline void mask_word(const std::uint16_t* mask, std::uint64_t& zero, std::uint64_t& live) {
  const __m512i low = _mm512_loadu_si512(mask), high = _mm512_loadu_si512(mask + 32);
  const __m512i minus_infinity = _mm512_set1_epi16(static_cast<short>(0xFC00)), sign = _mm512_set1_epi16(0x7FFF);
  zero = static_cast<std::uint64_t>(_mm512_testn_epi16_mask(low, sign)) |
         static_cast<std::uint64_t>(_mm512_testn_epi16_mask(high, sign)) << 32;
  live = static_cast<std::uint64_t>(_mm512_cmpneq_epi16_mask(low, minus_infinity)) |
         static_cast<std::uint64_t>(_mm512_cmpneq_epi16_mask(high, minus_infinity)) << 32;
}
}  // namespace
}  // namespace tailor::attention

#include "infer/attention_kernel.inc"

namespace tailor::attention {
namespace {
inline Vec load_half(const std::uint16_t* halves) {
  return reinterpret_cast<Vec>(_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(halves))));
}
}  // namespace
const Kernel& kernel_avx512() {
  static constexpr Kernel kKernel = {sizeof(Scratch) / sizeof(float), tile, mask_bits};
  return kKernel;
}
}  // namespace tailor::attention
#else
#error "this file is compiled for AVX-512"
#endif
