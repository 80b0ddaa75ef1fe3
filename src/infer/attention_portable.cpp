// The kernel of infer/attention.h for any processor.
#include "infer/attention_kernel.h"

namespace tailor::attention {
namespace {
constexpr int kLanes = 4;
constexpr int kRegisters = 8;
typedef float Four __attribute__((vector_size(16), aligned(4), may_alias));

inline float folded(Four v) {
  return (v[0] + v[2]) + (v[1] + v[3]);
}

inline float widened(std::uint16_t half) {
  const std::uint32_t sign = static_cast<std::uint32_t>(half & 0x8000) << 16, rest = half & 0x7FFF;
  union {
    std::uint32_t bits;
    float value;
  } x;
  if (rest >= 0x7C00) {  // infinite or not a number
    x.bits = sign | 0x7F800000U | (rest & 0x3FF) << 13;
    return x.value;
  }
  x.bits = rest << 13;  // exponents are 112 too small, which the factor puts right, subnormal numbers included
  x.value *= 5.192296858534828e33f;  // 2^112
  x.bits |= sign;
  return x.value;
}

inline void mask_word(const std::uint16_t* mask, std::uint64_t& zero, std::uint64_t& live) {
  for (int i = 0; i < 64; ++i) {
    zero |= static_cast<std::uint64_t>((mask[i] & 0x7FFF) == 0) << i;
    live |= static_cast<std::uint64_t>(mask[i] != 0xFC00) << i;
  }
}
}  // namespace
}  // namespace tailor::attention

#include "infer/attention_kernel.inc"

namespace tailor::attention {
namespace {
inline Vec load_half(const std::uint16_t* halves) {
  return Vec{widened(halves[0]), widened(halves[1]), widened(halves[2]), widened(halves[3])};
}
}  // namespace
const Kernel& kernel_portable() {
  static constexpr Kernel kKernel = {sizeof(Scratch) / sizeof(float), tile, mask_bits};
  return kKernel;
}
}  // namespace tailor::attention
