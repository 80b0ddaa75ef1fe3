#pragma once
/// Products with quantized weights, on processors with dot products of bytes (AVX-512 VNNI) or with AVX2.
///
/// Sixteen rows of a matrix lie side by side, four bytes of each in turn, so that an instruction multiplies sixteen
/// (AVX2: eight) rows by four values of a token. Values are quantized as ggml does it: 32 at a time, to bytes and one
/// factor. A token's product does not depend on the tokens beside it, nor on the processor.

#include <cstddef>
#include <cstdint>

namespace tailor {

enum class PackedFormat : std::uint8_t { kQ8_0, kQ4_0, kQ4_1 };  // of ggml: blocks of 32

struct PackedMatrix {
  PackedFormat format;
  std::int64_t rows = 0, width = 0;  // multiples of 16 and 32
  const std::byte* data = nullptr;   // packed_bytes(), at an address that 64 divides
};

/// Whether this processor runs it.
bool packed_products();
bool packed_shape(std::int64_t rows, std::int64_t width);
/// As many as ggml's own layout takes.
std::size_t packed_bytes(PackedFormat format, std::int64_t rows, std::int64_t width);
/// From ggml's layout. `to` and `from` must not overlap.
void pack(PackedFormat format, std::int64_t rows, std::int64_t width, const std::byte* from, std::byte* to);
/// The reverse, bit for bit.
void unpack(PackedFormat format, std::int64_t rows, std::int64_t width, const std::byte* from, std::byte* to);

/// out[token][row] = row of the matrix times the token's values; `values` and `out` are [tokens] rows without gaps.
void multiply(const PackedMatrix& matrix, const float* values, std::int64_t tokens, float* out, int threads);

}  // namespace tailor
