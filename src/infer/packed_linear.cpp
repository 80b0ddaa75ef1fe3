#include "infer/packed_linear.h"

#include <algorithm>

#include "infer/processor.h"

namespace tailor {
namespace {

constexpr std::size_t kPanel = 16;
constexpr std::size_t kTile = 6;     // 6 x 16 accumulators, two panel vectors and a broadcast fill 16 registers
constexpr std::size_t kDepth = 384;  // a panel's block, 24 KiB, stays in the first-level cache
constexpr std::size_t kRows = 192;   // the rows' block, 288 KiB, stays in the second

using Vector [[gnu::vector_size(32)]] = float;
typedef float AnyVector __attribute__((vector_size(32), aligned(4), may_alias));  // at any address

using Tile = void (*)(const float*, std::size_t, const float*, std::size_t, const float*, bool, float*, std::size_t,
                      std::size_t);

namespace here {  // as this file is compiled
#include "infer/packed_linear_tile.h"
}

#if defined(__x86_64__) && !defined(__AVX2__)
// A build for older processors, whose encoders would be half as fast on all others.
namespace avx2 {
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#include "infer/packed_linear_tile.h"
#pragma GCC pop_options
}  // namespace avx2

const Tile* tiles() {
  return runs(InstructionSet::kAvx2) ? avx2::kTiles : here::kTiles;
}
#else
const Tile* tiles() {
  return here::kTiles;
}
#endif

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
  const Tile* const tile_of = tiles();
  for (std::size_t row = 0; row < rows; row += kRows) {
    const std::size_t row_end = std::min(rows, row + kRows);
    for (std::size_t depth = 0; depth < in_; depth += kDepth) {
      const std::size_t depth_here = std::min(kDepth, in_ - depth);
      for (std::size_t p = 0; p < panels_; ++p) {
        const float* panel = weight_.data() + (p * in_ + depth) * kPanel;
        const std::size_t columns = std::min(kPanel, out_ - p * kPanel);
        for (std::size_t r = row; r < row_end; r += kTile) {
          tile_of[std::min(kTile, row_end - r)](x + r * in_ + depth, in_, panel, depth_here, bias_.data() + p * kPanel,
                                                depth == 0, y + r * out_ + p * kPanel, out_, columns);
        }
      }
    }
  }
}

}  // namespace tailor
