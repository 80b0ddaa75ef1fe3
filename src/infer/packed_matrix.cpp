#include "infer/packed_matrix.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <memory>
#include <new>

#include "infer/packed_kernel.h"
#include "infer/processor.h"

namespace tailor {
namespace {

using packed::kBlock;
using packed::kRows;

/// ggml's block: one or two 16-bit factors, then 32 bytes, or 16 with the first half's values in the low four bits.
std::size_t header(PackedFormat format) {
  return format == PackedFormat::kQ4_1 ? 4 : 2;
}
std::size_t quants(PackedFormat format) {
  return format == PackedFormat::kQ8_0 ? 32 : 16;
}

/// Where the three parts of a packed matrix begin.
struct Parts {
  std::size_t quants, factors, lowest, end;
  Parts(PackedFormat format, std::int64_t rows, std::int64_t width) {
    const auto blocks = static_cast<std::size_t>(rows * width / kBlock);
    quants = 0;
    factors = blocks * tailor::quants(format);
    lowest = factors + blocks * 2;
    end = factors + blocks * header(format);
  }
};

/// Calls move(where it is in ggml's layout, where in ours, how many bytes, whether they are weights) for every piece.
template <typename Move>
void each_piece(PackedFormat format, std::int64_t rows, std::int64_t width, const Move& move) {
  const Parts parts(format, rows, width);
  const std::int64_t blocks = width / kBlock;
  const std::size_t head = header(format), body = quants(format), block_bytes = head + body;
  for (std::int64_t row = 0; row < rows; ++row) {
    for (std::int64_t b = 0; b < blocks; ++b) {
      const std::size_t from = static_cast<std::size_t>(row * blocks + b) * block_bytes;
      const auto place = static_cast<std::size_t>(row / kRows * blocks + b);
      const auto lane = static_cast<std::size_t>(row % kRows);
      move(from, parts.factors + (place * kRows + lane) * 2, 2, false);
      if (head == 4) move(from + 2, parts.lowest + (place * kRows + lane) * 2, 2, false);
      for (std::size_t i = 0; i < body; i += 4)
        move(from + head + i, parts.quants + place * body * kRows + i / 4 * 64 + lane * 4, 4, true);
    }
  }
}

/// The instruction wants one of its factors as unsigned numbers.
void copy_piece(PackedFormat format, const std::byte* from, std::byte* to, int bytes, bool weights) {
  if (bytes == 2) {
    std::memcpy(to, from, 2);
    return;
  }
  std::uint32_t four;
  std::memcpy(&four, from, 4);
  if (weights && format == PackedFormat::kQ8_0) four ^= 0x80808080U;
  std::memcpy(to, &four, 4);
}

/// A thread's memory for values as bytes, kept for the next call.
std::byte* scratch(std::size_t bytes) {
  struct Free {
    void operator()(std::byte* p) const { ::operator delete[](p, std::align_val_t{64}); }
  };
  thread_local std::unique_ptr<std::byte[], Free> held;
  thread_local std::size_t size = 0;
  if (size < bytes) {
    held.reset();
    size = 0;
    held.reset(new (std::align_val_t{64}) std::byte[bytes]);
    size = bytes;
  }
  return held.get();
}

/// The fastest that this processor runs, or null.
const packed::Kernel* kernel() {
  static const packed::Kernel* const fastest = runs(InstructionSet::kVnni)   ? &packed::kernel_vnni()
                                               : runs(InstructionSet::kAvx2) ? &packed::kernel_avx2()
                                                                             : nullptr;
  return fastest;
}

}  // namespace

bool packed_products() {
  return kernel() != nullptr;
}

bool packed_shape(std::int64_t rows, std::int64_t width) {
  return rows > 0 && width > 0 && rows % kRows == 0 && width % kBlock == 0;
}

std::size_t packed_bytes(PackedFormat format, std::int64_t rows, std::int64_t width) {
  return Parts(format, rows, width).end;
}

void pack(PackedFormat format, std::int64_t rows, std::int64_t width, const std::byte* from, std::byte* to) {
  each_piece(format, rows, width, [&](std::size_t theirs, std::size_t ours, int bytes, bool weights) {
    copy_piece(format, from + theirs, to + ours, bytes, weights);
  });
}

void unpack(PackedFormat format, std::int64_t rows, std::int64_t width, const std::byte* from, std::byte* to) {
  each_piece(format, rows, width, [&](std::size_t theirs, std::size_t ours, int bytes, bool weights) {
    copy_piece(format, from + ours, to + theirs, bytes, weights);
  });
}

void multiply(const PackedMatrix& matrix, const float* values, std::int64_t tokens, float* out, int threads) {
  packed::multiply(matrix, values, tokens, out, threads, *kernel());
}

void packed::multiply(const PackedMatrix& matrix, const float* values, std::int64_t tokens, float* out, int threads,
                      const Kernel& kernel) {
  const Parts parts(matrix.format, matrix.rows, matrix.width);
  const auto cells = static_cast<std::size_t>(tokens * matrix.width), blocks = cells / kBlock;
  std::byte* const memory = scratch(cells + blocks * 8);
  const packed::Bytes bytes{reinterpret_cast<std::int8_t*>(memory), reinterpret_cast<float*>(memory + cells),
                            reinterpret_cast<std::int32_t*>(memory + cells + blocks * 4)};
  const packed::Product product{.format = static_cast<int>(matrix.format),
                                .width = matrix.width,
                                .rows = matrix.rows,
                                .tokens = tokens,
                                .weights = reinterpret_cast<const std::uint8_t*>(matrix.data),
                                .factors = reinterpret_cast<const std::uint16_t*>(matrix.data + parts.factors),
                                .lowest = reinterpret_cast<const std::uint16_t*>(matrix.data + parts.lowest),
                                .bytes = bytes,
                                .out = out};
  const std::int64_t stripes = matrix.rows / kRows;
  if (threads <= 1 || stripes < 2) {
    kernel.quantize(values, matrix.width, tokens, bytes);
    return kernel.multiply_rows(product, 0, stripes);
  }
  const std::int64_t chunk = std::max<std::int64_t>(4, stripes / (threads * 4) / 8 * 8);
  std::atomic<std::int64_t> next{0};
#pragma omp parallel num_threads(threads)
  {
#pragma omp for schedule(static)
    for (std::int64_t t = 0; t < tokens; ++t) {
      const std::int64_t block = t * matrix.width / kBlock;
      kernel.quantize(values + t * matrix.width, matrix.width, 1,
                      {bytes.values + t * matrix.width, bytes.factors + block, bytes.sums + block});
    }
    for (std::int64_t first = next.fetch_add(chunk); first < stripes; first = next.fetch_add(chunk))
      kernel.multiply_rows(product, first, std::min(stripes, first + chunk));
  }
}

}  // namespace tailor
