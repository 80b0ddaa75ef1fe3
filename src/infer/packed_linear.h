#pragma once
/// A linear layer whose weights are laid out once for the multiplication:  y = x W^T + b,  f32.
///
/// Shapes: W [out, in], b [out], x [rows, in], y [rows, out], all row-major. General BLAS libraries copy both operands
/// into such a layout on every call, which costs a tenth of the time at an encoder's sizes.
///
/// Columns are packed in panels of 16; a tile of 6 rows by 16 columns stays in registers (Goto, van de Geijn, Anatomy
/// of High-Performance Matrix Multiplication, 2008). Tested against a plain triple loop.

#include <cstddef>
#include <span>
#include <vector>

namespace tailor {

/// Immutable; forward() is safe to call from several threads.
class PackedLinear {
 public:
  PackedLinear() = default;
  /// `weight` holds out * in values, `bias` out values or none.
  PackedLinear(std::span<const float> weight, std::span<const float> bias, std::size_t in, std::size_t out);
  void forward(const float* x, std::size_t rows, float* y) const;
  std::size_t in() const { return in_; }
  std::size_t out() const { return out_; }

 private:
  std::size_t in_ = 0, out_ = 0, panels_ = 0;
  std::vector<float> weight_;  // [panel][in][16], columns past `out` are 0
  std::vector<float> bias_;    // [panels * 16]
};

}  // namespace tailor
