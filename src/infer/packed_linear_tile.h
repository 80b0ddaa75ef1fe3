// The inner loop of packed_linear.cpp, which includes it once for each kind of processor, in a namespace of its own. No
// #pragma once, and nothing is included here.

// Pointers and not vectors go through functions: how a vector is passed depends on the processor.
inline const AnyVector* at(const float* p) {
  return reinterpret_cast<const AnyVector*>(p);
}
inline AnyVector* at(float* p) {
  return reinterpret_cast<AnyVector*>(p);  // a memcpy of 32 bytes GCC 12 takes apart into two halves on the stack
}

/// c[r][0..16) = (first ? bias : c[r]) + sum_k a[r][k] * panel[k], r < R. Columns at and past `columns` are not
/// written.
template <std::size_t R>
void tile(const float* a, std::size_t a_stride, const float* panel, std::size_t depth, const float* bias, bool first,
          float* c, std::size_t c_stride, std::size_t columns) {
  Vector left[R], right[R];
#pragma GCC unroll 6
  for (std::size_t r = 0; r < R; ++r) {
    if (first) {
      left[r] = *at(bias);
      right[r] = *at(bias + 8);
    } else if (columns == kPanel) {
      left[r] = *at(c + r * c_stride);
      right[r] = *at(c + r * c_stride + 8);
    } else {
      float row[kPanel] = {};
      std::copy_n(c + r * c_stride, columns, row);
      left[r] = *at(row);
      right[r] = *at(row + 8);
    }
  }
  for (std::size_t k = 0; k < depth; ++k) {
    const Vector p0 = *at(panel + k * kPanel);
    const Vector p1 = *at(panel + k * kPanel + 8);
#pragma GCC unroll 6
    for (std::size_t r = 0; r < R; ++r) {
      const float value = a[r * a_stride + k];
      left[r] += value * p0;
      right[r] += value * p1;
    }
  }
#pragma GCC unroll 6
  for (std::size_t r = 0; r < R; ++r) {
    if (columns == kPanel) {
      *at(c + r * c_stride) = left[r];
      *at(c + r * c_stride + 8) = right[r];
      continue;
    }
    float row[kPanel];
    *at(row) = left[r];
    *at(row + 8) = right[r];
    std::copy_n(row, columns, c + r * c_stride);
  }
}

constexpr Tile kTiles[kTile + 1] = {nullptr, tile<1>, tile<2>, tile<3>, tile<4>, tile<5>, tile<6>};
