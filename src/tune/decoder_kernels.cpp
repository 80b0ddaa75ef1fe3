// Sums may be reassociated and products fused in this file only.
#pragma GCC optimize("O3,fast-math")

#include "tune/decoder_kernels.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "tune/profile.h"
#include "tune/vector_math.h"

namespace tailor::tune::decoder {
namespace {

using Vec = simd::F8;  // the compiler makes one or two registers of it, as the machine has them
using simd::exp, simd::load, simd::splat, simd::store, simd::sum;
constexpr std::int64_t kLanes = 8;

inline float exp1(float x) {
  return exp(splat(x))[0];
}

/// C rows of MR, columns of 8 NV: the accumulators stay in registers (12 of 16 at 6 x 16).
template <int MR, int NV>
inline void block(std::int64_t k, const float* a, std::int64_t a_row, std::int64_t a_col, const float* b,
                  std::int64_t ld_b, float* c, std::int64_t ld_c, bool add) {
  Vec acc[MR][NV];
  for (int i = 0; i < MR; ++i) {
    for (int j = 0; j < NV; ++j) acc[i][j] = add ? load(c + i * ld_c + j * kLanes) : splat(0);
  }
  for (std::int64_t p = 0; p < k; ++p) {
    Vec bv[NV];
    for (int j = 0; j < NV; ++j) bv[j] = load(b + p * ld_b + j * kLanes);
    for (int i = 0; i < MR; ++i) {
      const Vec av = splat(a[i * a_row + p * a_col]);
      for (int j = 0; j < NV; ++j) acc[i][j] += av * bv[j];
    }
  }
  for (int i = 0; i < MR; ++i) {
    for (int j = 0; j < NV; ++j) store(c + i * ld_c + j * kLanes, acc[i][j]);
  }
}

template <int NV>
inline void columns(std::int64_t m, std::int64_t k, const float* a, std::int64_t a_row, std::int64_t a_col,
                    const float* b, std::int64_t ld_b, float* c, std::int64_t ld_c, bool add) {
  std::int64_t i = 0;
  for (; i + 6 <= m; i += 6) block<6, NV>(k, a + i * a_row, a_row, a_col, b, ld_b, c + i * ld_c, ld_c, add);
  a += i * a_row;
  c += i * ld_c;
  switch (m - i) {
    case 5:
      block<5, NV>(k, a, a_row, a_col, b, ld_b, c, ld_c, add);
      break;
    case 4:
      block<4, NV>(k, a, a_row, a_col, b, ld_b, c, ld_c, add);
      break;
    case 3:
      block<3, NV>(k, a, a_row, a_col, b, ld_b, c, ld_c, add);
      break;
    case 2:
      block<2, NV>(k, a, a_row, a_col, b, ld_b, c, ld_c, add);
      break;
    case 1:
      block<1, NV>(k, a, a_row, a_col, b, ld_b, c, ld_c, add);
      break;
    default:
      break;
  }
}

std::int64_t round_up(std::int64_t n, std::int64_t to) {
  return (n + to - 1) / to * to;
}

/// The path of one segment: where each of its tokens stands in the batch.
void path_of(std::span<const TreeSegment> segments, std::size_t s, std::vector<std::int64_t>& path) {
  path.resize(static_cast<std::size_t>(segments[s].offset + segments[s].length));
  for (auto i = static_cast<std::int64_t>(s); i >= 0; i = segments[static_cast<std::size_t>(i)].parent) {
    const TreeSegment& t = segments[static_cast<std::size_t>(i)];
    for (std::int64_t j = 0; j < t.length; ++j) path[static_cast<std::size_t>(t.offset + j)] = t.begin + j;
  }
}

/// Work items (segment, kv head), cut into runs of about equal cost, one a thread; kv head by kv head.
class Schedule {
 public:
  Schedule(std::span<const TreeSegment> segments, const QuerySet& queries, std::int64_t kv_heads)
      : segments_(static_cast<std::int64_t>(segments.size())) {
    for (std::int64_t h = 0; h < kv_heads; ++h) {
      for (std::size_t s = 0; s < segments.size(); ++s) {
        const double n = static_cast<double>(queries.begin[s + 1] - queries.begin[s]);
        if (n > 0) total_ += (n + 2.0) * static_cast<double>(segments[s].offset + segments[s].length);
        cost_.push_back(total_);
      }
    }
  }
  template <typename Body>  // body(segment, kv_head)
  void run(const Body& body) const {
    const auto items = static_cast<std::int64_t>(cost_.size());
    const std::int64_t parts = std::min<std::int64_t>(items, at::get_num_threads());
    at::parallel_for(0, parts, 1, [&](std::int64_t first, std::int64_t last) {
      const std::int64_t begin = cut(first, parts);
      const std::int64_t end = cut(last, parts);
      for (std::int64_t i = begin; i < end; ++i) {
        body(static_cast<std::size_t>(i % segments_), i / segments_);
      }
    });
  }

 private:
  std::int64_t cut(std::int64_t part, std::int64_t parts) const {
    if (part == parts) return static_cast<std::int64_t>(cost_.size());
    const double limit = total_ * static_cast<double>(part) / static_cast<double>(parts);
    return std::lower_bound(cost_.begin(), cost_.end(), limit) - cost_.begin();
  }
  std::int64_t segments_;
  std::vector<double> cost_;
  double total_ = 0;
};

constexpr std::int64_t kQueryBlock = 48;  // rows of scores held at once
constexpr std::int64_t kFewQueries = 3;   // of a segment: not worth a copy of its path's keys and values

/// scores [m, visible of the last row] -> exp(score * scale - shift), zero where a key is in the future.
void exponentials(float* row, std::int64_t visible, std::int64_t width, float scale, float shift) {
  const Vec s = splat(scale);
  const Vec d = splat(shift);
  std::int64_t j = 0;
  for (; j + kLanes <= visible; j += kLanes) store(row + j, exp(load(row + j) * s - d));
  if (j < visible) {
    Vec v = exp(load(row + j) * s - d);
    for (std::int64_t i = 0; i < kLanes; ++i) row[j + i] = j + i < visible ? v[static_cast<int>(i)] : 0.0f;
    j += kLanes;
  }
  for (; j < width; ++j) row[j] = 0;
}

float row_max(const float* row, std::int64_t n) {
  Vec m = splat(row[0]);
  std::int64_t j = 0;
  for (; j + kLanes <= n; j += kLanes) m = simd::maximum(m, load(row + j));
  float best = m[0];
  for (int i = 1; i < kLanes; ++i) best = std::max(best, m[i]);
  for (; j < n; ++j) best = std::max(best, row[j]);
  return best;
}

float row_sum(const float* row, std::int64_t n) {
  Vec s = splat(0);
  std::int64_t j = 0;
  for (; j + kLanes <= n; j += kLanes) s += load(row + j);
  float total = sum(s);
  for (; j < n; ++j) total += row[j];
  return total;
}

float dot(const float* a, const float* b, std::int64_t n) {
  Vec s = splat(0);
  std::int64_t j = 0;
  for (; j + kLanes <= n; j += kLanes) s += load(a + j) * load(b + j);
  float total = sum(s);
  for (; j < n; ++j) total += a[j] * b[j];
  return total;
}

/// Of a query that sees keys [0, visible) of its path: the first that its window leaves.
std::int64_t first_seen(const AttentionShape& shape, std::int64_t visible) {
  return shape.window > 0 ? std::max<std::int64_t>(0, visible - shape.window) : 0;
}

/// Products of one query with the keys, made into scores where they are more than scaled products.
void shape_scores(const AttentionShape& shape, std::int64_t head, std::int64_t visible, float* row) {
  for (std::int64_t j = 0; j < visible; ++j) row[j] *= shape.scale;
  if (shape.softcap > 0) {
    const float inverse = 2.0f / shape.softcap;
    for (std::int64_t j = 0; j < visible; ++j) {
      const float e = exp1(-std::abs(row[j]) * inverse);
      const float t = (1 - e) / (1 + e);
      row[j] = shape.softcap * (row[j] < 0 ? -t : t);
    }
  }
  if (shape.slopes != nullptr) {
    const float slope = shape.slopes[head];
    for (std::int64_t j = 0; j < visible; ++j) row[j] += slope * static_cast<float>(j);
  }
}

/// rows of head_dim floats, gathered along a path, as they are or turned on their side ([head_dim, width], zero padded)
void gather(const float* from, std::int64_t ld, const std::vector<std::int64_t>& path, std::int64_t n, float* to) {
  for (std::size_t i = 0; i < path.size(); ++i) {
    std::memcpy(to + static_cast<std::int64_t>(i) * n, from + path[i] * ld,
                static_cast<std::size_t>(n) * sizeof(float));
  }
}
void gather_transposed(const float* from, std::int64_t ld, const std::vector<std::int64_t>& path, std::int64_t n,
                       std::int64_t width, float* to) {
  const auto length = static_cast<std::int64_t>(path.size());
  for (std::int64_t i = 0; i < length; ++i) {
    const float* row = from + path[static_cast<std::size_t>(i)] * ld;
    for (std::int64_t d = 0; d < n; ++d) to[d * width + i] = row[d];
  }
  for (std::int64_t d = 0; d < n; ++d) {
    for (std::int64_t i = length; i < width; ++i) to[d * width + i] = 0;
  }
}

/// Products of one query with `visible` keys -> weights, 0 outside of the window and from `visible` to `width`; they
/// are to be multiplied by what is returned.
float soften(const AttentionShape& shape, std::int64_t head, std::int64_t visible, std::int64_t width, float* row,
             float* lse) {
  const bool plain = shape.plain();
  const float scale = plain ? shape.scale : 1.0f;  // that is left to do
  const std::int64_t first_key = first_seen(shape, visible);
  if (!plain) shape_scores(shape, head, visible, row);
  const float shift = row_max(row + first_key, visible - first_key) * scale;
  exponentials(row, visible, width, scale, shift);
  std::fill_n(row, first_key, 0.0f);
  const float total = row_sum(row, width);
  *lse = shift + std::log(total);
  return 1.0f / total;
}

/// Sum over heads and queries of the keys that are seen, times the width of a head.
double pairs(const AttentionShape& shape, const QuerySet& queries) {
  double seen = 0;
  for (const std::int64_t position : queries.position)
    seen += static_cast<double>(shape.window > 0 ? std::min(position + 1, shape.window) : position + 1);
  return seen * static_cast<double>(shape.heads * shape.head_dim);
}

/// Queries and outputs, keys and values, `times` over.
double floats_moved(const AttentionShape& shape, std::span<const TreeSegment> segments, const QuerySet& queries,
                    int times) {
  const std::int64_t tokens = segments.empty() ? 0 : segments.back().begin + segments.back().length;
  return static_cast<double>(times * shape.head_dim) *
         static_cast<double>(queries.size() * shape.heads + tokens * shape.kv_heads);
}

void grow(std::vector<float>& v, std::int64_t n) {
  if (static_cast<std::int64_t>(v.size()) < n) v.resize(static_cast<std::size_t>(n));
}

}  // namespace

void small_gemm(std::int64_t m, std::int64_t n, std::int64_t k, const float* a, std::int64_t a_row, std::int64_t a_col,
                const float* b, std::int64_t ld_b, float* c, std::int64_t ld_c, bool add) {
  std::int64_t j = 0;
  for (; j + 2 * kLanes <= n; j += 2 * kLanes) columns<2>(m, k, a, a_row, a_col, b + j, ld_b, c + j, ld_c, add);
  if (j + kLanes <= n) {
    columns<1>(m, k, a, a_row, a_col, b + j, ld_b, c + j, ld_c, add);
    j += kLanes;
  }
  for (; j < n; ++j) {
    for (std::int64_t i = 0; i < m; ++i) {
      float s = add ? c[i * ld_c + j] : 0.0f;
      for (std::int64_t p = 0; p < k; ++p) s += a[i * a_row + p * a_col] * b[p * ld_b + j];
      c[i * ld_c + j] = s;
    }
  }
}

namespace {

/// One query of one head; keys and values are read where they stand.
void attend(const AttentionShape& shape, std::int64_t head, std::int64_t kv, const AttentionData& data,
            const std::vector<std::int64_t>& path, const float* q, std::int64_t visible, float* weights, float* out,
            float* lse) {
  const std::int64_t dim = shape.head_dim;
  for (std::int64_t j = 0; j < visible; ++j)
    weights[j] = dot(q, data.k + path[static_cast<std::size_t>(j)] * data.ld_kv + kv * dim, dim);
  const float inverse = soften(shape, head, visible, round_up(visible, kLanes), weights, lse);
  std::fill_n(out, dim, 0.0f);
  for (std::int64_t j = first_seen(shape, visible); j < visible; ++j) {
    const float* value = data.v + path[static_cast<std::size_t>(j)] * data.ld_kv + kv * dim;
    const float weight = weights[j] * inverse;
    for (std::int64_t d = 0; d < dim; ++d) out[d] += weight * value[d];
  }
}

}  // namespace

void attention(const AttentionShape& shape, std::span<const TreeSegment> segments, const QuerySet& queries,
               const AttentionData& data, float* out, std::int64_t ld_out, float* lse) {
  const ProfileScope scope(Kernel::kAttention, 4 * pairs(shape, queries), floats_moved(shape, segments, queries, 2));
  const std::int64_t group = shape.heads / shape.kv_heads;
  const std::int64_t dim = shape.head_dim;
  Schedule(segments, queries, shape.kv_heads).run([&](std::size_t s, std::int64_t kv) {
    const std::int64_t first = queries.begin[s];
    const std::int64_t last = queries.begin[s + 1];
    if (first == last) return;
    thread_local std::vector<std::int64_t> path;
    thread_local std::vector<float> keys, values, scores;
    path_of(segments, s, path);
    if (last - first <= kFewQueries) {
      grow(scores, round_up(static_cast<std::int64_t>(path.size()), 2 * kLanes));
      for (std::int64_t q = first; q < last; ++q) {
        for (std::int64_t head = kv * group; head < (kv + 1) * group; ++head) {
          attend(shape, head, kv, data, path, data.q + q * data.ld_q + head * dim,
                 queries.position[static_cast<std::size_t>(q)] + 1, scores.data(), out + q * ld_out + head * dim,
                 lse + q * shape.heads + head);
        }
      }
      return;
    }
    const auto length = static_cast<std::int64_t>(path.size());
    const std::int64_t width = round_up(length, 2 * kLanes);
    grow(keys, dim * width);
    grow(values, length * dim);
    grow(scores, kQueryBlock * width);
    gather_transposed(data.k + kv * dim, data.ld_kv, path, dim, width, keys.data());
    gather(data.v + kv * dim, data.ld_kv, path, dim, values.data());
    for (std::int64_t head = kv * group; head < (kv + 1) * group; ++head) {
      for (std::int64_t q0 = first; q0 < last; q0 += kQueryBlock) {
        const std::int64_t m = std::min(kQueryBlock, last - q0);
        const std::int64_t seen = queries.position[static_cast<std::size_t>(q0 + m - 1)] + 1;
        const std::int64_t seen_wide = round_up(seen, 2 * kLanes);
        small_gemm(m, seen_wide, dim, data.q + q0 * data.ld_q + head * dim, data.ld_q, 1, keys.data(), width,
                   scores.data(), width, false);
        float inverse[kQueryBlock];
        for (std::int64_t i = 0; i < m; ++i) {
          inverse[i] = soften(shape, head, queries.position[static_cast<std::size_t>(q0 + i)] + 1, seen_wide,
                              scores.data() + i * width, lse + (q0 + i) * shape.heads + head);
        }
        float* o = out + q0 * ld_out + head * dim;
        small_gemm(m, dim, seen, scores.data(), width, 1, values.data(), dim, o, ld_out, false);
        for (std::int64_t i = 0; i < m; ++i) {
          for (std::int64_t d = 0; d < dim; ++d) o[i * ld_out + d] *= inverse[i];
        }
      }
    }
  });
}

void attention_backward(const AttentionShape& shape, std::span<const TreeSegment> segments, const QuerySet& queries,
                        const AttentionData& data, const float* out, const float* dout, std::int64_t ld_out,
                        const float* lse, float* dq, std::int64_t ld_dq, float* dk, float* dv, std::int64_t ld_dkv) {
  const ProfileScope scope(Kernel::kAttentionBackward, 10 * pairs(shape, queries),
                           floats_moved(shape, segments, queries, 4));
  const std::int64_t group = shape.heads / shape.kv_heads;
  const std::int64_t dim = shape.head_dim;
  const bool plain = shape.plain();
  const float scale = plain ? shape.scale : 1.0f;
  const std::int64_t row_floats = 2 * shape.kv_heads * dim;  // of a spill buffer: dk of all heads, then dv
  std::vector<std::int64_t> spill_at;
  std::int64_t spill_rows = 0;
  for (const TreeSegment& s : segments) {
    spill_at.push_back(spill_rows);
    spill_rows += s.offset;
  }
  std::vector<float> spill(static_cast<std::size_t>(spill_rows * row_floats));

  Schedule(segments, queries, shape.kv_heads).run([&](std::size_t s, std::int64_t kv) {
    thread_local std::vector<std::int64_t> path;
    thread_local std::vector<float> keys, keys_t, values_t, scores, dscores, gk, gv, capped;
    const TreeSegment& segment = segments[s];
    const std::int64_t first = queries.begin[s];
    const std::int64_t last = queries.begin[s + 1];
    path_of(segments, s, path);
    const auto length = static_cast<std::int64_t>(path.size());
    const std::int64_t width = round_up(length, 2 * kLanes);
    grow(keys, length * dim);
    grow(keys_t, dim * width);
    grow(values_t, dim * width);
    grow(scores, kQueryBlock * width);
    grow(dscores, kQueryBlock * width);
    gk.assign(static_cast<std::size_t>(length * dim), 0.0f);
    gv.assign(static_cast<std::size_t>(length * dim), 0.0f);
    if (first != last) {
      gather(data.k + kv * dim, data.ld_kv, path, dim, keys.data());
      gather_transposed(data.k + kv * dim, data.ld_kv, path, dim, width, keys_t.data());
      gather_transposed(data.v + kv * dim, data.ld_kv, path, dim, width, values_t.data());
    }
    for (std::int64_t head = kv * group; head < (kv + 1) * group; ++head) {
      for (std::int64_t q0 = first; q0 < last; q0 += kQueryBlock) {
        const std::int64_t m = std::min(kQueryBlock, last - q0);
        const std::int64_t seen = queries.position[static_cast<std::size_t>(q0 + m - 1)] + 1;
        const std::int64_t seen_wide = round_up(seen, 2 * kLanes);
        const float* q = data.q + q0 * data.ld_q + head * dim;
        const float* o = out + q0 * ld_out + head * dim;
        const float* g = dout + q0 * ld_out + head * dim;
        small_gemm(m, seen_wide, dim, q, data.ld_q, 1, keys_t.data(), width, scores.data(), width, false);
        small_gemm(m, seen_wide, dim, g, ld_out, 1, values_t.data(), width, dscores.data(), width, false);
        for (std::int64_t i = 0; i < m; ++i) {
          float* p = scores.data() + i * width;
          float* d = dscores.data() + i * width;
          const std::int64_t visible = queries.position[static_cast<std::size_t>(q0 + i)] + 1;
          if (!plain) shape_scores(shape, head, visible, p);
          if (shape.softcap > 0) capped.assign(p, p + visible);
          exponentials(p, visible, seen_wide, scale, lse[(q0 + i) * shape.heads + head]);
          std::fill_n(p, first_seen(shape, visible), 0.0f);
          const float delta = dot(o + i * ld_out, g + i * ld_out, dim);
          for (std::int64_t j = 0; j < seen_wide; ++j) d[j] = p[j] * (d[j] - delta) * shape.scale;
          if (shape.softcap == 0) continue;
          const float slope = shape.slopes == nullptr ? 0.0f : shape.slopes[head];
          for (std::int64_t j = 0; j < visible; ++j) {
            const float t = (capped[static_cast<std::size_t>(j)] - slope * static_cast<float>(j)) / shape.softcap;
            d[j] *= 1 - t * t;
          }
        }
        small_gemm(m, dim, seen, dscores.data(), width, 1, keys.data(), dim, dq + q0 * ld_dq + head * dim, ld_dq,
                   false);
        small_gemm(seen, dim, m, scores.data(), 1, width, g, ld_out, gv.data(), dim, true);
        small_gemm(seen, dim, m, dscores.data(), 1, width, q, data.ld_q, gk.data(), dim, true);
      }
    }
    // The segment's own rows, then the ancestors'.
    const std::size_t bytes = static_cast<std::size_t>(dim) * sizeof(float);
    for (std::int64_t i = 0; i < segment.length; ++i) {
      const std::int64_t to = (segment.begin + i) * ld_dkv + kv * dim;
      std::memcpy(dk + to, gk.data() + (segment.offset + i) * dim, bytes);
      std::memcpy(dv + to, gv.data() + (segment.offset + i) * dim, bytes);
    }
    for (std::int64_t i = 0; i < segment.offset; ++i) {
      float* to = spill.data() + (spill_at[s] + i) * row_floats + kv * dim;
      std::memcpy(to, gk.data() + i * dim, bytes);
      std::memcpy(to + shape.kv_heads * dim, gv.data() + i * dim, bytes);
    }
  });

  // Segments are cut by columns (heads), so that every number has one writer and one order of summation.
  if (spill_rows == 0) return;
  at::parallel_for(0, shape.kv_heads, 1, [&](std::int64_t begin, std::int64_t end) {
    const std::int64_t from_column = begin * dim;
    const std::int64_t columns_here = (end - begin) * dim;
    for (std::size_t s = 0; s < segments.size(); ++s) {
      for (std::int32_t a = segments[s].parent; a >= 0; a = segments[static_cast<std::size_t>(a)].parent) {
        const TreeSegment& ancestor = segments[static_cast<std::size_t>(a)];
        for (std::int64_t i = 0; i < ancestor.length; ++i) {
          const float* from = spill.data() + (spill_at[s] + ancestor.offset + i) * row_floats + from_column;
          float* to_k = dk + (ancestor.begin + i) * ld_dkv + from_column;
          float* to_v = dv + (ancestor.begin + i) * ld_dkv + from_column;
          const float* from_v = from + shape.kv_heads * dim;
          for (std::int64_t c = 0; c < columns_here; ++c) to_k[c] += from[c];
          for (std::int64_t c = 0; c < columns_here; ++c) to_v[c] += from_v[c];
        }
      }
    }
  });
}

void cross_entropy(float* logits, std::int64_t rows, std::int64_t n, std::span<const LabelTarget> targets,
                   std::int64_t first_node, const float* weights, float* losses, std::uint8_t* likeliest,
                   bool gradient) {
  const ProfileScope scope(Kernel::kLoss, 10 * static_cast<double>(rows * n),
                           static_cast<double>(rows * n) * (gradient ? 2 : 1));
  at::parallel_for(0, rows, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t r = begin; r < end; ++r) {
      float* row = logits + r * n;
      const auto node = static_cast<std::int32_t>(first_node + r);
      auto t = std::lower_bound(targets.begin(), targets.end(), node,
                                [](const LabelTarget& a, std::int32_t b) { return a.node < b; });
      const float top = row_max(row, n);
      const Vec shift = splat(top);
      Vec totals = splat(0);
      std::int64_t j = 0;
      float total = 0;
      // The logit of a target is read before the row turns into exponentials.
      for (auto u = t; u != targets.end() && u->node == node; ++u) {
        losses[u - targets.begin()] = row[u->token];
        if (likeliest != nullptr) likeliest[u - targets.begin()] = row[u->token] >= top ? 1 : 0;
      }
      for (; j + kLanes <= n; j += kLanes) {
        const Vec e = exp(load(row + j) - shift);
        if (gradient) store(row + j, e);
        totals += e;
      }
      for (; j < n; ++j) {
        const float e = exp1(row[j] - top);
        if (gradient) row[j] = e;
        total += e;
      }
      total += sum(totals);
      const float log_total = top + std::log(total);
      float weight = 0;
      for (auto u = t; u != targets.end() && u->node == node; ++u) {
        float& loss = losses[u - targets.begin()];
        loss = log_total - loss;
        weight += weights[u - targets.begin()];
      }
      if (!gradient) continue;
      const float factor = weight / total;
      for (std::int64_t i = 0; i < n; ++i) row[i] *= factor;
      for (auto u = t; u != targets.end() && u->node == node; ++u) row[u->token] -= weights[u - targets.begin()];
    }
  });
}

}  // namespace tailor::tune::decoder
