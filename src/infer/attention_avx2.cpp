// The kernel of infer/attention.h for processors with AVX2; the compiler's flags are in CMakeLists.txt.
#include "infer/attention_kernel.h"

#include <immintrin.h>

namespace tailor::attention {
namespace {
constexpr int kLanes = 8;
constexpr int kRegisters = 12;

inline float folded(__m256 v) {
  __m128 x = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  x = _mm_add_ps(x, _mm_movehl_ps(x, x));
  return _mm_cvtss_f32(_mm_add_ss(x, _mm_movehdup_ps(x)));
}
inline void mask_word(const std::uint16_t* mask, std::uint64_t& zero, std::uint64_t& live) {
  for (int i = 0; i < 64; i += 16) {
    const __m256i v = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(mask + i));
    const __m256i is_zero = _mm256_cmpeq_epi16(_mm256_and_si256(v, _mm256_set1_epi16(0x7FFF)), _mm256_setzero_si256());
    const __m256i is_dead = _mm256_cmpeq_epi16(v, _mm256_set1_epi16(static_cast<short>(0xFC00)));
    const auto bits = [](__m256i m) {  // of 16 words, in their order
      return static_cast<std::uint64_t>(static_cast<unsigned>(
          _mm_movemask_epi8(_mm_packs_epi16(_mm256_castsi256_si128(m), _mm256_extracti128_si256(m, 1)))));
    };
    zero |= bits(is_zero) << i;
    live |= (~bits(is_dead) & 0xFFFF) << i;
  }
}
}  // namespace
}  // namespace tailor::attention

#include "infer/attention_kernel.inc"

namespace tailor::attention {
namespace {
inline Vec load_half(const std::uint16_t* halves) {
  return reinterpret_cast<Vec>(_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(halves))));
}
}  // namespace
const Kernel& kernel_avx2() {
  static constexpr Kernel kKernel = {sizeof(Scratch) / sizeof(float), tile, mask_bits};
  return kKernel;
}
}  // namespace tailor::attention
