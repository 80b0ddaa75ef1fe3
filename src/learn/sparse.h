#pragma once
/// Sparse rows (CSR) and a view over dense or sparse features, so that a linear model is written once.

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "core/matrix.h"

namespace tailor {

/// Compressed sparse rows. Row i owns entries starts[i] … starts[i + 1]; columns ascend within a row.
struct CsrMatrix {
  std::size_t rows = 0;
  std::size_t cols = 0;
  std::vector<std::size_t> starts = {0};  // [rows + 1]
  std::vector<std::uint32_t> columns;
  std::vector<float> values;
};

CsrMatrix transpose(const CsrMatrix& m);  // O(entries)
/// [a | b], rows side by side. Different row counts throw Exception{kInvalidArgument}.
CsrMatrix join_columns(const CsrMatrix& a, const CsrMatrix& b);
CsrMatrix gather_rows(const CsrMatrix& m, std::span<const std::size_t> rows);
Matrix gather_rows(const Matrix& m, std::span<const std::size_t> rows);

/// Borrows a dense or a sparse matrix, which must outlive it.
class Features {
 public:
  Features(const Matrix& dense) : dense_(&dense) {}        // NOLINT(google-explicit-constructor)
  Features(const CsrMatrix& sparse) : sparse_(&sparse) {}  // NOLINT(google-explicit-constructor)
  std::size_t rows() const { return dense_ ? dense_->rows : sparse_->rows; }
  std::size_t cols() const { return dense_ ? dense_->cols : sparse_->cols; }
  const Matrix* dense() const { return dense_; }
  const CsrMatrix* sparse() const { return sparse_; }

 private:
  const Matrix* dense_ = nullptr;
  const CsrMatrix* sparse_ = nullptr;
};

}  // namespace tailor
