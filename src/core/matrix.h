#pragma once
/// A dense row-major f32 matrix that owns its memory; the currency between embedders, linear models and neighbours.

#include <cstddef>
#include <span>
#include <vector>

namespace tailor {

struct Matrix {
  std::size_t rows = 0;
  std::size_t cols = 0;
  std::vector<float> data;  // rows * cols, row-major

  Matrix() = default;
  Matrix(std::size_t r, std::size_t c) : rows(r), cols(c), data(r * c, 0.0f) {}
  std::span<float> row(std::size_t i) { return {data.data() + i * cols, cols}; }
  std::span<const float> row(std::size_t i) const { return {data.data() + i * cols, cols}; }
};

}  // namespace tailor
