#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "tune/encoder_kernels.h"
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

/// to[ep, np] = from[n, ep] transposed, zero-padded.
void transpose(const float* from, std::int64_t n, std::int64_t np, std::int64_t ep, float* to) {
  for (std::int64_t c = 0; c < ep; ++c) {
    for (std::int64_t i = 0; i < n; ++i) to[c * np + i] = from[i * ep + c];
    for (std::int64_t i = n; i < np; ++i) to[c * np + i] = 0;
  }
}

void softmax_rows(float* scores, std::int64_t rows, std::int64_t n, std::int64_t np) {
  for (std::int64_t i = 0; i < rows; ++i) {
    float* s = scores + i * np;
    for (std::int64_t j = n; j < np; ++j) s[j] = -INFINITY;
    F8 top = load(s);
    for (std::int64_t j = 8; j < np; j += 8) top = simd::maximum(top, load(s + j));
    float largest = top[0];
    for (int j = 1; j < 8; ++j) largest = std::max(largest, top[j]);
    F8 total = {};
    for (std::int64_t j = 0; j < np; j += 8) {
      const F8 p = simd::exp(load(s + j) - largest);
      store(s + j, p);
    }
    for (std::int64_t j = n; j < np; ++j) s[j] = 0;
    for (std::int64_t j = 0; j < np; j += 8) total += load(s + j);
    const float inverse = 1.0f / simd::sum(total);
    for (std::int64_t j = 0; j < np; j += 8) store(s + j, load(s + j) * inverse);
  }
}

/// Splits the tasks (row, head) over the threads so that each has about the same number of multiplications.
template <typename Body>
void for_heads(std::span<const std::int64_t> offsets, std::int64_t heads, const Body& body) {
  const auto rows = static_cast<std::int64_t>(offsets.size()) - 1;
  std::vector<double> cost(static_cast<std::size_t>(rows) + 1, 0);  // of all rows before this one
  for (std::int64_t r = 0; r < rows; ++r) {
    const auto n = static_cast<double>(offsets[r + 1] - offsets[r]);
    cost[static_cast<std::size_t>(r) + 1] = cost[static_cast<std::size_t>(r)] + n * (n + 16);
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
                       float* out) {
  const std::int64_t e = d / heads;
  const std::int64_t ep = round_up_8(e);
  const float scale = 1.0f / std::sqrt(static_cast<float>(e));
  for_heads(offsets, heads, [&](std::int64_t row, std::int64_t head, Scratch& scratch) {
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
    const float* base = qkv + first * 3 * d + head * e;
    pack(base, 3 * d, n, e, ep, scale, q);
    pack(base + d, 3 * d, n, e, ep, 1, k);
    pack(base + 2 * d, 3 * d, n, e, ep, 1, v);
    transpose(k, n, np, ep, kt);
    for (std::int64_t i = 0; i < n; i += kQueries) {
      const std::int64_t m = std::min(kQueries, n - i);
      simd::product(m, np, ep, q + i * ep, ep, 1, kt, np, p, np, false);
      softmax_rows(p, m, n, np);
      simd::product(m, ep, n, p, np, 1, v, ep, o, ep, false);
      for (std::int64_t a = 0; a < m; ++a) std::copy_n(o + a * ep, e, out + (first + i + a) * d + head * e);
    }
  });
}

void attention_backward(const float* d_out, const float* qkv, std::span<const std::int64_t> offsets, std::int64_t heads,
                        std::int64_t d, float* d_qkv) {
  const std::int64_t e = d / heads;
  const std::int64_t ep = round_up_8(e);
  const float scale = 1.0f / std::sqrt(static_cast<float>(e));
  for_heads(offsets, heads, [&](std::int64_t row, std::int64_t head, Scratch& scratch) {
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
    const float* base = qkv + first * 3 * d + head * e;
    pack(base, 3 * d, n, e, ep, scale, q);
    pack(base + d, 3 * d, n, e, ep, 1, k);
    pack(base + 2 * d, 3 * d, n, e, ep, 1, v);
    pack(d_out + first * d + head * e, d, n, e, ep, 1, go);
    transpose(k, n, np, ep, kt);
    transpose(v, n, np, ep, vt);
    float* to = d_qkv + first * 3 * d + head * e;
    for (std::int64_t i = 0; i < n; i += kQueries) {
      const std::int64_t m = std::min(kQueries, n - i);
      simd::product(m, np, ep, q + i * ep, ep, 1, kt, np, p, np, false);
      softmax_rows(p, m, n, np);
      simd::product(n, ep, m, p, 1, np, go + i * ep, ep, dv, ep, i > 0);
      simd::product(m, np, ep, go + i * ep, ep, 1, vt, np, dp, np, false);
      for (std::int64_t a = 0; a < m; ++a) {
        F8 total = {};
        for (std::int64_t j = 0; j < np; j += 8) total += load(p + a * np + j) * load(dp + a * np + j);
        const float mean = simd::sum(total);
        for (std::int64_t j = 0; j < np; j += 8) {
          store(dp + a * np + j, load(p + a * np + j) * (load(dp + a * np + j) - mean));
        }
      }
      simd::product(m, ep, n, dp, np, 1, k, ep, dq, ep, false);
      simd::product(n, ep, m, dp, 1, np, q + i * ep, ep, dk, ep, i > 0);  // q carries the scale
      for (std::int64_t a = 0; a < m; ++a) {
        for (std::int64_t c = 0; c < e; ++c) to[(i + a) * 3 * d + c] = dq[a * ep + c] * scale;
      }
    }
    for (std::int64_t i = 0; i < n; ++i) {
      std::copy_n(dk + i * ep, e, to + i * 3 * d + d);
      std::copy_n(dv + i * ep, e, to + i * 3 * d + 2 * d);
    }
  });
}

}  // namespace tailor::tune
