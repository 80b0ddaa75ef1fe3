#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "tune/encoder_kernels.h"
#include "tune/profile.h"
#include "tune/vector_math.h"

// Legend: n tokens of a row, np = n rounded up to 8, e head width, ep = e rounded up to 8. A task is one head of one
// row; its operands are copied into small contiguous buffers, so that the products run out of the first-level cache.

namespace tailor::tune {
namespace {

using simd::F8;
using simd::load;
using simd::store;

constexpr std::int64_t kQueries = 64;  // score rows kept at once

std::int64_t round_up_8(std::int64_t n) {
  return (n + 7) / 8 * 8;
}

/// Memory of one thread, grown to the longest row it meets.
class Scratch {
 public:
  float* take(std::int64_t floats) {
    float* p = memory_.data() + used_;
    used_ += static_cast<std::size_t>(round_up_8(floats));
    return p;
  }
  void reset(std::int64_t floats) {
    if (memory_.size() < static_cast<std::size_t>(floats)) memory_.resize(static_cast<std::size_t>(floats));
    used_ = 0;
  }

 private:
  std::vector<float> memory_;
  std::size_t used_ = 0;
};

/// to[n, ep] = scale * from[n, e] (rows `stride` apart), zero-padded.
void pack(const float* from, std::int64_t stride, std::int64_t n, std::int64_t e, std::int64_t ep, float scale,
          float* to) {
  for (std::int64_t i = 0; i < n; ++i) {
    for (std::int64_t c = 0; c < e; ++c) to[i * ep + c] = scale * from[i * stride + c];
    for (std::int64_t c = e; c < ep; ++c) to[i * ep + c] = 0;
  }
}

/// The same with pairs (c, c + e / 2) turned by their row's place.
void pack_turned(const float* from, std::int64_t stride, std::int64_t n, std::int64_t e, std::int64_t ep, float scale,
                 const float* rotary, float* to) {
  const std::int64_t half = e / 2;
  for (std::int64_t i = 0; i < n; ++i) {
    const float* x = from + i * stride;
    float* y = to + i * ep;
    for (std::int64_t c = 0; c < half; ++c) {
      const float cosine = rotary[i * e + 2 * c], sine = rotary[i * e + 2 * c + 1];
      y[c] = scale * (x[c] * cosine - x[c + half] * sine);
      y[c + half] = scale * (x[c + half] * cosine + x[c] * sine);
    }
    for (std::int64_t c = e; c < ep; ++c) y[c] = 0;
  }
}

/// to[e] = scale * from[e], turned back where `rotary` (of this row's place) is there.
void unpack_row(const float* from, std::int64_t e, float scale, const float* rotary, float* to) {
  if (rotary == nullptr) {
    for (std::int64_t c = 0; c < e; ++c) to[c] = from[c] * scale;
    return;
  }
  const std::int64_t half = e / 2;
  for (std::int64_t c = 0; c < half; ++c) {
    const float cosine = rotary[2 * c], sine = rotary[2 * c + 1];
    to[c] = scale * (from[c] * cosine + from[c + half] * sine);
    to[c + half] = scale * (from[c + half] * cosine - from[c] * sine);
  }
}

/// The keys that m queries from i on see: [first, first + width), `first` and `width` multiples of 8.
struct KeyRange {
  std::int64_t first, width;
  KeyRange(std::int64_t i, std::int64_t m, std::int64_t n, std::int64_t reach) {
    first = reach < 0 ? 0 : std::max<std::int64_t>(0, i - reach) / 8 * 8;
    const std::int64_t end = reach < 0 ? n : std::min(n, i + m + reach);
    width = round_up_8(end) - first;
  }
  std::int64_t count(std::int64_t n) const { return std::min(n - first, width); }
};

/// to[ep, np] = from[n, ep] transposed, zero-padded.
void transpose(const float* from, std::int64_t n, std::int64_t np, std::int64_t ep, float* to) {
  for (std::int64_t c = 0; c < ep; ++c) {
    for (std::int64_t i = 0; i < n; ++i) to[c * np + i] = from[i * ep + c];
    for (std::int64_t i = n; i < np; ++i) to[c * np + i] = 0;
  }
}

/// Pairs of a query and a key that it sees.
double pairs(std::span<const std::int64_t> offsets, std::int64_t reach) {
  double total = 0;
  for (std::size_t r = 0; r + 1 < offsets.size(); ++r) {
    const auto n = offsets[r + 1] - offsets[r];
    total += static_cast<double>(n) * static_cast<double>(reach < 0 ? n : std::min(n, 2 * reach + 1));
  }
  return total;
}

/// Softmax of m rows of scores, of queries i, i + 1, … for the keys of the range; what a query does not see becomes 0.
void softmax_rows(float* scores, std::int64_t m, std::int64_t i, std::int64_t n, const KeyRange& keys,
                  std::int64_t reach) {
  const std::int64_t w = keys.width;
  for (std::int64_t a = 0; a < m; ++a) {
    float* s = scores + a * w;
    const std::int64_t from = reach < 0 ? 0 : std::max<std::int64_t>(0, i + a - reach) - keys.first;
    const std::int64_t to = (reach < 0 ? n : std::min(n, i + a + reach + 1)) - keys.first;
    std::fill(s, s + from, -INFINITY);
    std::fill(s + to, s + w, -INFINITY);
    F8 top = load(s);
    for (std::int64_t j = 8; j < w; j += 8) top = simd::maximum(top, load(s + j));
    float largest = top[0];
    for (int j = 1; j < 8; ++j) largest = std::max(largest, top[j]);
    for (std::int64_t j = 0; j < w; j += 8) store(s + j, simd::exp(load(s + j) - largest));
    std::fill(s, s + from, 0.0f);
    std::fill(s + to, s + w, 0.0f);
    F8 total = {};
    for (std::int64_t j = 0; j < w; j += 8) total += load(s + j);
    const float inverse = 1.0f / simd::sum(total);
    for (std::int64_t j = 0; j < w; j += 8) store(s + j, load(s + j) * inverse);
  }
}

/// Queries (times 1 / sqrt(e)), keys and values of one head of one row, as the products want them.
void pack_head(const float* base, std::int64_t d, std::int64_t n, std::int64_t e, std::int64_t ep,
               const AttentionView& view, float* q, float* k, float* v) {
  const float scale = 1.0f / std::sqrt(static_cast<float>(e));
  if (view.rotary != nullptr) {
    pack_turned(base, 3 * d, n, e, ep, scale, view.rotary, q);
    pack_turned(base + d, 3 * d, n, e, ep, 1, view.rotary, k);
  } else {
    pack(base, 3 * d, n, e, ep, scale, q);
    pack(base + d, 3 * d, n, e, ep, 1, k);
  }
  pack(base + 2 * d, 3 * d, n, e, ep, 1, v);
}

/// Splits the tasks (row, head) over the threads so that each has about the same number of multiplications.
template <typename Body>
void for_heads(std::span<const std::int64_t> offsets, std::int64_t heads, std::int64_t reach, const Body& body) {
  const auto rows = static_cast<std::int64_t>(offsets.size()) - 1;
  std::vector<double> cost(static_cast<std::size_t>(rows) + 1, 0);  // of all rows before this one
  for (std::int64_t r = 0; r < rows; ++r) {
    const auto n = static_cast<double>(offsets[r + 1] - offsets[r]);
    cost[static_cast<std::size_t>(r) + 1] =
        cost[static_cast<std::size_t>(r)] +
        n * ((reach < 0 ? n : std::min(n, static_cast<double>(2 * reach + kQueries))) + 16);
  }
  const auto parts = static_cast<std::int64_t>(at::get_num_threads());
  const double total = cost.back();
  // First task of a part: by row, then by head inside the row.
  const auto first_task = [&](std::int64_t part) {
    if (part >= parts) return rows * heads;
    const double target = total * static_cast<double>(part) / static_cast<double>(parts);
    const auto r = std::upper_bound(cost.begin(), cost.end(), target) - cost.begin() - 1;
    if (r >= rows) return rows * heads;
    const double inside = (target - cost[static_cast<std::size_t>(r)]) /
                          (cost[static_cast<std::size_t>(r) + 1] - cost[static_cast<std::size_t>(r)]);
    return r * heads + static_cast<std::int64_t>(inside * static_cast<double>(heads));
  };
  at::parallel_for(0, parts, 1, [&](std::int64_t begin, std::int64_t end) {
    thread_local Scratch scratch;
    for (std::int64_t task = first_task(begin); task < first_task(end); ++task)
      body(task / heads, task % heads, scratch);
  });
}

}  // namespace

void attention_forward(const float* qkv, std::span<const std::int64_t> offsets, std::int64_t heads, std::int64_t d,
                       float* out, const AttentionView& view) {
  const ProfileScope scope(Kernel::kAttention, 4 * pairs(offsets, view.reach) * static_cast<double>(d),
                           4 * static_cast<double>(offsets.back() * d));
  const std::int64_t e = d / heads;
  const std::int64_t ep = round_up_8(e);
  for_heads(offsets, heads, view.reach, [&](std::int64_t row, std::int64_t head, Scratch& scratch) {
    const std::int64_t first = offsets[row];
    const std::int64_t n = offsets[row + 1] - first;
    const std::int64_t np = round_up_8(n);
    scratch.reset(3 * n * ep + ep * np + kQueries * np + kQueries * ep + 64);
    float* q = scratch.take(n * ep);
    float* k = scratch.take(n * ep);
    float* v = scratch.take(n * ep);
    float* kt = scratch.take(ep * np);
    float* p = scratch.take(kQueries * np);
    float* o = scratch.take(kQueries * ep);
    pack_head(qkv + first * 3 * d + head * e, d, n, e, ep, view, q, k, v);
    transpose(k, n, np, ep, kt);
    for (std::int64_t i = 0; i < n; i += kQueries) {
      const std::int64_t m = std::min(kQueries, n - i);
      const KeyRange keys(i, m, n, view.reach);
      const std::int64_t w = keys.width;
      simd::product(m, w, ep, q + i * ep, ep, 1, kt + keys.first, np, p, w, false);
      softmax_rows(p, m, i, n, keys, view.reach);
      simd::product(m, ep, keys.count(n), p, w, 1, v + keys.first * ep, ep, o, ep, false);
      for (std::int64_t a = 0; a < m; ++a) std::copy_n(o + a * ep, e, out + (first + i + a) * d + head * e);
    }
  });
}

void attention_backward(const float* d_out, const float* qkv, std::span<const std::int64_t> offsets, std::int64_t heads,
                        std::int64_t d, float* d_qkv, const AttentionView& view) {
  const ProfileScope scope(Kernel::kAttentionBackward, 10 * pairs(offsets, view.reach) * static_cast<double>(d),
                           7 * static_cast<double>(offsets.back() * d));
  const std::int64_t e = d / heads;
  const std::int64_t ep = round_up_8(e);
  const float scale = 1.0f / std::sqrt(static_cast<float>(e));
  for_heads(offsets, heads, view.reach, [&](std::int64_t row, std::int64_t head, Scratch& scratch) {
    const std::int64_t first = offsets[row];
    const std::int64_t n = offsets[row + 1] - first;
    const std::int64_t np = round_up_8(n);
    scratch.reset(6 * n * ep + 2 * ep * np + 2 * kQueries * np + kQueries * ep + 96);
    float* q = scratch.take(n * ep);
    float* k = scratch.take(n * ep);
    float* v = scratch.take(n * ep);
    float* go = scratch.take(n * ep);
    float* dk = scratch.take(n * ep);
    float* dv = scratch.take(n * ep);
    float* kt = scratch.take(ep * np);
    float* vt = scratch.take(ep * np);
    float* p = scratch.take(kQueries * np);
    float* dp = scratch.take(kQueries * np);
    float* dq = scratch.take(kQueries * ep);
    pack_head(qkv + first * 3 * d + head * e, d, n, e, ep, view, q, k, v);
    pack(d_out + first * d + head * e, d, n, e, ep, 1, go);
    transpose(k, n, np, ep, kt);
    transpose(v, n, np, ep, vt);
    std::fill_n(dk, n * ep, 0.0f);
    std::fill_n(dv, n * ep, 0.0f);
    float* to = d_qkv + first * 3 * d + head * e;
    const auto turn = [&](std::int64_t place) { return view.rotary == nullptr ? nullptr : view.rotary + place * e; };
    for (std::int64_t i = 0; i < n; i += kQueries) {
      const std::int64_t m = std::min(kQueries, n - i);
      const KeyRange keys(i, m, n, view.reach);
      const std::int64_t w = keys.width, seen = keys.count(n), at = keys.first * ep;
      simd::product(m, w, ep, q + i * ep, ep, 1, kt + keys.first, np, p, w, false);
      softmax_rows(p, m, i, n, keys, view.reach);
      simd::product(seen, ep, m, p, 1, w, go + i * ep, ep, dv + at, ep, true);
      simd::product(m, w, ep, go + i * ep, ep, 1, vt + keys.first, np, dp, w, false);
      for (std::int64_t a = 0; a < m; ++a) {
        F8 total = {};
        for (std::int64_t j = 0; j < w; j += 8) total += load(p + a * w + j) * load(dp + a * w + j);
        const float mean = simd::sum(total);
        for (std::int64_t j = 0; j < w; j += 8) {
          store(dp + a * w + j, load(p + a * w + j) * (load(dp + a * w + j) - mean));
        }
      }
      simd::product(m, ep, seen, dp, w, 1, k + at, ep, dq, ep, false);
      simd::product(seen, ep, m, dp, 1, w, q + i * ep, ep, dk + at, ep, true);  // q carries the scale
      for (std::int64_t a = 0; a < m; ++a) unpack_row(dq + a * ep, e, scale, turn(i + a), to + (i + a) * 3 * d);
    }
    for (std::int64_t i = 0; i < n; ++i) {
      unpack_row(dk + i * ep, e, 1, turn(i), to + i * 3 * d + d);
      std::copy_n(dv + i * ep, e, to + i * 3 * d + 2 * d);
    }
  });
}

}  // namespace tailor::tune
