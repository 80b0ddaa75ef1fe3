#include "infer/packed_linear.h"

#include <algorithm>

namespace tailor {
namespace {

constexpr std::size_t kPanel = 16;
constexpr std::size_t kTile = 6;     // 6 x 16 accumulators, two panel vectors and a broadcast fill 16 registers
constexpr std::size_t kDepth = 384;  // a panel's block, 24 KiB, stays in the first-level cache
constexpr std::size_t kRows = 192;   // the rows' block, 288 KiB, stays in the second

using Vector [[gnu::vector_size(32)]] = float;
typedef float AnyVector __attribute__((vector_size(32), aligned(4), may_alias));  // at any address

// Through a pointer: GCC 12 takes a memcpy of 32 bytes apart into two halves on the stack.
inline Vector load(const float* p) {
  return *reinterpret_cast<const AnyVector*>(p);
}
inline void store(float* p, Vector v) {
  *reinterpret_cast<AnyVector*>(p) = v;
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
      left[r] = load(bias);
      right[r] = load(bias + 8);
    } else if (columns == kPanel) {
      left[r] = load(c + r * c_stride);
      right[r] = load(c + r * c_stride + 8);
    } else {
      float row[kPanel] = {};
      std::copy_n(c + r * c_stride, columns, row);
      left[r] = load(row);
      right[r] = load(row + 8);
    }
  }
  for (std::size_t k = 0; k < depth; ++k) {
    const Vector p0 = load(panel + k * kPanel);
    const Vector p1 = load(panel + k * kPanel + 8);
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
      store(c + r * c_stride, left[r]);
      store(c + r * c_stride + 8, right[r]);
      continue;
    }
    float row[kPanel];
    store(row, left[r]);
    store(row + 8, right[r]);
    std::copy_n(row, columns, c + r * c_stride);
  }
}

using Tile = void (*)(const float*, std::size_t, const float*, std::size_t, const float*, bool, float*, std::size_t,
                      std::size_t);
constexpr Tile kTiles[kTile + 1] = {nullptr, tile<1>, tile<2>, tile<3>, tile<4>, tile<5>, tile<6>};

}  // namespace

PackedLinear::PackedLinear(std::span<const float> weight, std::span<const float> bias, std::size_t in, std::size_t out)
    : in_(in),
      out_(out),
      panels_((out + kPanel - 1) / kPanel),
      weight_(panels_ * in * kPanel, 0.0f),
      bias_(panels_ * kPanel, 0.0f) {
  for (std::size_t o = 0; o < out; ++o) {
    float* target = weight_.data() + (o / kPanel) * in * kPanel + o % kPanel;
    for (std::size_t i = 0; i < in; ++i) target[i * kPanel] = weight[o * in + i];
  }
  std::copy(bias.begin(), bias.end(), bias_.begin());
}

void PackedLinear::forward(const float* x, std::size_t rows, float* y) const {
  for (std::size_t row = 0; row < rows; row += kRows) {
    const std::size_t row_end = std::min(rows, row + kRows);
    for (std::size_t depth = 0; depth < in_; depth += kDepth) {
      const std::size_t depth_here = std::min(kDepth, in_ - depth);
      for (std::size_t p = 0; p < panels_; ++p) {
        const float* panel = weight_.data() + (p * in_ + depth) * kPanel;
        const std::size_t columns = std::min(kPanel, out_ - p * kPanel);
        for (std::size_t r = row; r < row_end; r += kTile) {
          kTiles[std::min(kTile, row_end - r)](x + r * in_ + depth, in_, panel, depth_here, bias_.data() + p * kPanel,
                                               depth == 0, y + r * out_ + p * kPanel, out_, columns);
        }
      }
    }
  }
}

}  // namespace tailor
