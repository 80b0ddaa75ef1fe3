#pragma once
/// Products with frozen weight matrices that are read once per product straight from where they lie (f32, or GGUF
/// blocks), unpacked a panel at a time into the cache: no f32 copy of a quantised model, no repacking by a BLAS.
/// The loops follow Goto and van de Geijn, "Anatomy of High-Performance Matrix Multiplication" (ACM TOMS 2008), with a
/// micro-kernel of 6 x 16. Threads: on at::parallel_for, one caller at a time; results do not depend on the number of
/// threads.

#include <cstddef>
#include <cstdint>
#include <span>

namespace tailor::tune::decoder {

/// W [rows, columns], each row `row_bytes` after the one before, as `type` (enum ggml_type) says.
struct FrozenMatrix {
  int type = 0;
  const char* data = nullptr;
  std::size_t row_bytes = 0;
  std::int64_t rows = 0;
  std::int64_t columns = 0;
};

/// Whether this build's processor features and the matrix's shape (multiples of 16) suit the functions below; the
/// caller takes at::mm where not.
bool fast_gemm_suits(const FrozenMatrix& w);

/// One module of a product, with its adapter: y_part = x W^T + scale * h[:, rank_begin : + rank] B^T.
struct ProductPart {
  FrozenMatrix w;
  const float* lora_b = nullptr;  // [w.rows, rank]; null: none
  std::int64_t rank = 0;
  std::int64_t rank_begin = 0;
};

/// y [m, sum of rows] = residual + the parts side by side. x [m, columns]; h [m, ranks] is used where parts have an
/// adapter; residual has y's shape and spacing, or is null for 0. y and residual may be the same memory.
void frozen_product(std::span<const ProductPart> parts, const float* x, std::int64_t ld_x, std::int64_t m,
                    const float* h, std::int64_t ld_h, float scale, const float* residual, float* y, std::int64_t ld_y);

/// dx [m, columns] = sum over parts of dy_part W + dh a. dy [m, sum of rows]; dh [m, ranks] and a [ranks, columns] may
/// be null.
void frozen_product_backward(std::span<const ProductPart> parts, const float* dy, std::int64_t ld_dy, std::int64_t m,
                             const float* dh, std::int64_t ranks, const float* a, float* dx, std::int64_t ld_dx);

/// c [m, n] = or += a [m, k] b [k, n], a(i, j) = a[i * a_row + j * a_col]: thin products, cut among threads
/// along m or n, whichever is longer. n is a multiple of 8 for full speed.
void thin_product(std::int64_t m, std::int64_t n, std::int64_t k, const float* a, std::int64_t a_row,
                  std::int64_t a_col, const float* b, std::int64_t ld_b, float* c, std::int64_t ld_c, bool add);

/// columns [begin, begin + n) of a row as f32; begin is a multiple of the type's block.
void unpack_row(const FrozenMatrix& w, std::int64_t row, std::int64_t begin, std::int64_t n, float* out);

}  // namespace tailor::tune::decoder
