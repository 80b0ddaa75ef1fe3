#pragma once
/// The arithmetic of infer/packed_matrix.h, once per instruction set; packed_matrix.cpp chooses. Internal.

#include <cstddef>
#include <cstdint>

namespace tailor {

struct PackedMatrix;

namespace packed {

inline constexpr int kRows = 16;   // side by side
inline constexpr int kBlock = 32;  // values that share a factor

enum Format { kQ8_0, kQ4_0, kQ4_1 };  // as PackedFormat
template <int F>
inline constexpr std::int64_t kBytes = F == kQ8_0 ? 32 * kRows : 16 * kRows;  // of a block of sixteen rows
template <int F>
inline constexpr std::int32_t kZero = F == kQ8_0   ? 128
                                      : F == kQ4_0 ? 8
                                                   : 0;  // what stands for 0 in the weights

/// Values as bytes: [token][width]; per token and block a factor, and the sum of the bytes.
struct Bytes {
  std::int8_t* values;
  float* factors;
  std::int32_t* sums;
};

struct Product {
  int format;  // PackedFormat
  std::int64_t width, rows, tokens;
  const std::uint8_t* weights;   // [row / 16][block][group of four values][16][4]; two groups share a byte in 4 bits
  const std::uint16_t* factors;  // [row / 16][block][16]
  const std::uint16_t* lowest;   // the same, of Q4_1
  Bytes bytes;
  float* out;
};

struct Kernel {
  void (*quantize)(const float* values, std::int64_t width, std::int64_t tokens, const Bytes& to);
  /// Rows 16 * first to 16 * last.
  void (*multiply_rows)(const Product& product, std::int64_t first, std::int64_t last);
};

const Kernel& kernel_vnni();
const Kernel& kernel_avx2();  // gives the same bits

/// tailor::multiply() with a kernel of the caller's choice.
void multiply(const PackedMatrix& matrix, const float* values, std::int64_t tokens, float* out, int threads,
              const Kernel& kernel);

}  // namespace packed
}  // namespace tailor
