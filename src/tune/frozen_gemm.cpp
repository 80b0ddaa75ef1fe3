// Sums may be reassociated and products fused here, as in decoder_kernels.cpp.
#pragma GCC optimize("O3,fast-math")

#include "tune/frozen_gemm.h"

#include <ATen/Parallel.h>
#include <ggml.h>
#if defined(__AVX2__) && defined(__F16C__)
#include <immintrin.h>
#endif

#include <algorithm>
#include <cstring>
#include <utility>
#include <vector>

#include "tune/decoder_kernels.h"
#include "tune/profile.h"
#include "tune/vector_math.h"

namespace tailor::tune::decoder {
namespace {

#if defined(__AVX2__) && defined(__FMA__)
constexpr bool kFastBuild = true;
#else
constexpr bool kFastBuild = false;  // at::mm brings its own kernels for the machine it finds
#endif

using Vec = simd::F8;
using Index8 = simd::I8;
using simd::load, simd::splat, simd::store;
constexpr std::int64_t kLanes = 8;
constexpr std::int64_t kM = 6;           // micro-kernel rows
constexpr std::int64_t kN = 2 * kLanes;  // micro-kernel columns
constexpr std::int64_t kWidth = 64;      // columns of W unpacked at once in the backward product
constexpr std::int64_t kDepth = 320;     // a panel of W of this depth (20 KB) stays in the first-level cache

/// c [6, 16] = or += a [k][6] b [k][16].
inline void tile(std::int64_t k, const float* a, const float* b, float* c, std::int64_t ld_c, bool add) {
  Vec acc[kM][2];
  if (add) {
    for (int i = 0; i < kM; ++i) {
      acc[i][0] = load(c + i * ld_c);
      acc[i][1] = load(c + i * ld_c + kLanes);
    }
  } else {
    for (auto& row : acc) row[0] = row[1] = splat(0);
  }
#pragma GCC unroll 4
  for (std::int64_t p = 0; p < k; ++p) {
    const Vec b0 = load(b + p * kN);
    const Vec b1 = load(b + p * kN + kLanes);
#pragma GCC unroll 6
    for (int i = 0; i < kM; ++i) {
      const Vec ai = splat(a[p * kM + i]);
      acc[i][0] += ai * b0;
      acc[i][1] += ai * b1;
    }
  }
  for (int i = 0; i < kM; ++i) {
    store(c + i * ld_c, acc[i][0]);
    store(c + i * ld_c + kLanes, acc[i][1]);
  }
}

/// The same for the last rows: `rows` of the six exist.
void part_tile(std::int64_t rows, std::int64_t k, const float* a, const float* b, float* c, std::int64_t ld_c,
               bool add) {
  float full[kM * kN];
  if (add) {
    for (std::int64_t i = 0; i < kM; ++i) {
      for (std::int64_t j = 0; j < kN; ++j) full[i * kN + j] = i < rows ? c[i * ld_c + j] : 0.0f;
    }
  }
  tile(k, a, b, full, kN, add);
  for (std::int64_t i = 0; i < rows; ++i) std::memcpy(c + i * ld_c, full + i * kN, kN * sizeof(float));
}

std::int64_t tiles_of(std::int64_t m) {
  return (m + kM - 1) / kM;
}

/// x [m, k] -> [tiles][k][6], rows that do not exist as 0. `scale` multiplies.
void pack_rows(const float* x, std::int64_t ld, std::int64_t m, std::int64_t k, float scale, float* out) {
  at::parallel_for(0, tiles_of(m), std::max<std::int64_t>(1, 8192 / k), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t t = begin; t < end; ++t) {
      float* to = out + t * k * kM;
      const std::int64_t rows = std::min(kM, m - t * kM);
      const float* from = x + t * kM * ld;
      if (rows == kM) {
        for (std::int64_t j = 0; j < k; ++j) {
          for (std::int64_t i = 0; i < kM; ++i) to[j * kM + i] = from[i * ld + j] * scale;
        }
      } else {
        for (std::int64_t j = 0; j < k; ++j) {
          for (std::int64_t i = 0; i < kM; ++i) to[j * kM + i] = i < rows ? from[i * ld + j] * scale : 0.0f;
        }
      }
    }
  });
}

#if defined(__AVX2__) && defined(__F16C__)

float half(const char* p) {
  std::uint16_t h;
  std::memcpy(&h, p, sizeof(h));
  return _cvtsh_ss(h);
}
// The compiler takes a plain conversion of eight bytes apart into eight scalar ones.
inline Vec from_unsigned(__m128i eight) {
  return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(eight));
}
inline Vec from_signed(__m128i eight) {
  return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(eight));
}

/// 32 four-bit numbers in 16 bytes (low halves first) -> d * q + m.
inline void unpack_nibbles(const char* q, float d, float m, float* out) {
  const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(q));
  const __m128i low = _mm_and_si128(bytes, _mm_set1_epi8(15));
  const __m128i high = _mm_and_si128(_mm_srli_epi16(bytes, 4), _mm_set1_epi8(15));
  store(out, from_unsigned(low) * splat(d) + splat(m));
  store(out + 8, from_unsigned(_mm_srli_si128(low, 8)) * splat(d) + splat(m));
  store(out + 16, from_unsigned(high) * splat(d) + splat(m));
  store(out + 24, from_unsigned(_mm_srli_si128(high, 8)) * splat(d) + splat(m));
}

inline Vec from_bf16(const char* eight) {
  const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(eight));
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
}

/// The types that are met most; false: ggml's own code has to do it.
bool unpack_here(int type, const char* from, std::int64_t n, float* out) {
  switch (type) {
    case GGML_TYPE_BF16: {  // the upper half of a float
      std::int64_t i = 0;
      for (; i + kLanes <= n; i += kLanes, from += 2 * kLanes) store(out + i, from_bf16(from));
      for (; i < n; ++i, from += 2) {
        const std::uint32_t bits = static_cast<std::uint32_t>(static_cast<unsigned char>(from[0])) << 16 |
                                   static_cast<std::uint32_t>(static_cast<unsigned char>(from[1])) << 24;
        std::memcpy(out + i, &bits, sizeof(bits));
      }
      return true;
    }
    case GGML_TYPE_Q4_0:  // half d; 16 bytes
      for (std::int64_t i = 0; i < n; i += 32, from += 18) {
        const float d = half(from);
        unpack_nibbles(from + 2, d, -8 * d, out + i);
      }
      return true;
    case GGML_TYPE_Q4_1:  // half d, m; 16 bytes
      for (std::int64_t i = 0; i < n; i += 32, from += 20)
        unpack_nibbles(from + 4, half(from), half(from + 2), out + i);
      return true;
    case GGML_TYPE_Q8_0:  // half d; 32 bytes
      for (std::int64_t i = 0; i < n; i += 32, from += 34) {
        const Vec d = splat(half(from));
        for (int part = 0; part < 2; ++part) {
          const __m128i q = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + 2 + 16 * part));
          store(out + i + 16 * part, from_signed(q) * d);
          store(out + i + 16 * part + 8, from_signed(_mm_srli_si128(q, 8)) * d);
        }
      }
      return true;
    default:
      return false;
  }
}

#else

bool unpack_here(int, const char*, std::int64_t, float*) {
  return false;
}

#endif

void unpack(int type, const char* from, std::int64_t n, float* out) {
  if (type == GGML_TYPE_F32) {
    std::memcpy(out, from, static_cast<std::size_t>(n) * sizeof(float));
  } else if (!unpack_here(type, from, n, out)) {
    ggml_get_type_traits(static_cast<ggml_type>(type))->to_float(from, out, n);
  }
}

const char* at(const FrozenMatrix& w, std::int64_t row, std::int64_t column) {
  const char* p = w.data + static_cast<std::size_t>(row) * w.row_bytes;
  const auto type = static_cast<ggml_type>(w.type);
  return p + static_cast<std::size_t>(column / ggml_blck_size(type)) * ggml_type_size(type);
}

/// Eight rows of eight, turned on their side.
inline void transpose8(const float* from, std::int64_t ld, float* to, std::int64_t ld_to) {
  Vec r[8], s[8];
  for (int i = 0; i < 8; ++i) r[i] = load(from + i * ld);
  for (int i = 0; i < 8; i += 2) {
    s[i] = __builtin_shuffle(r[i], r[i + 1], Index8{0, 8, 1, 9, 4, 12, 5, 13});
    s[i + 1] = __builtin_shuffle(r[i], r[i + 1], Index8{2, 10, 3, 11, 6, 14, 7, 15});
  }
  for (int i = 0; i < 8; i += 4) {
    r[i] = __builtin_shuffle(s[i], s[i + 2], Index8{0, 1, 8, 9, 4, 5, 12, 13});
    r[i + 1] = __builtin_shuffle(s[i], s[i + 2], Index8{2, 3, 10, 11, 6, 7, 14, 15});
    r[i + 2] = __builtin_shuffle(s[i + 1], s[i + 3], Index8{0, 1, 8, 9, 4, 5, 12, 13});
    r[i + 3] = __builtin_shuffle(s[i + 1], s[i + 3], Index8{2, 3, 10, 11, 6, 7, 14, 15});
  }
  for (int i = 0; i < 4; ++i) {
    store(to + i * ld_to, __builtin_shuffle(r[i], r[i + 4], Index8{0, 1, 2, 3, 8, 9, 10, 11}));
    store(to + (i + 4) * ld_to, __builtin_shuffle(r[i], r[i + 4], Index8{4, 5, 6, 7, 12, 13, 14, 15}));
  }
}

/// 16 rows of n floats -> [n][16].
void pack_panel(const float* rows, std::int64_t ld, std::int64_t n, float* out) {
  std::int64_t j = 0;
  for (; j + kLanes <= n; j += kLanes) {
    transpose8(rows + j, ld, out + j * kN, kN);
    transpose8(rows + 8 * ld + j, ld, out + j * kN + kLanes, kN);
  }
  for (; j < n; ++j) {
    for (std::int64_t i = 0; i < kN; ++i) out[j * kN + i] = rows[i * ld + j];
  }
}

/// Depth of the slices that K is cut into: about equal, whole blocks of every part.
std::int64_t slice_of(std::span<const ProductPart> parts) {
  std::int64_t block = kLanes;
  for (const ProductPart& p : parts) {
    block = std::max<std::int64_t>(block, ggml_blck_size(static_cast<ggml_type>(p.w.type)));
  }
  const std::int64_t columns = parts.front().w.columns;
  const std::int64_t slices = (columns + kDepth - 1) / kDepth;
  return ((columns + slices - 1) / slices + block - 1) / block * block;
}

/// The part and the first row in it of panel i.
std::pair<std::size_t, std::int64_t> panel_at(std::span<const ProductPart> parts, std::int64_t i) {
  std::size_t part = 0;
  while (i >= parts[part].w.rows / kN) i -= parts[part++].w.rows / kN;
  return {part, i * kN};
}

double flops_of(std::span<const ProductPart> parts, std::int64_t m) {
  double a_row = 0;
  for (const ProductPart& p : parts) a_row += 2 * static_cast<double>(p.w.rows * (p.w.columns + p.rank));
  return a_row * static_cast<double>(m);
}

/// Moved by a product: weights (a quarter of a float for four bits, …), inputs and outputs once.
double floats_of(std::span<const ProductPart> parts, std::int64_t m) {
  double floats = static_cast<double>(m * parts.front().w.columns);
  for (const ProductPart& p : parts)
    floats +=
        static_cast<double>(p.w.rows) * (static_cast<double>(p.w.row_bytes) / sizeof(float) + static_cast<double>(m));
  return floats;
}

void grow(std::vector<float>& v, std::int64_t n) {
  if (static_cast<std::int64_t>(v.size()) < n) v.resize(static_cast<std::size_t>(n));
}

}  // namespace

bool fast_gemm_suits(const FrozenMatrix& w) {
  return kFastBuild && w.rows % kN == 0 && w.columns % kN == 0;
}

void unpack_row(const FrozenMatrix& w, std::int64_t row, std::int64_t begin, std::int64_t n, float* out) {
  unpack(w.type, at(w, row, begin), n, out);
}

void frozen_product(std::span<const ProductPart> parts, const float* x, std::int64_t ld_x, std::int64_t m,
                    const float* h, std::int64_t ld_h, float scale, const float* residual, float* y,
                    std::int64_t ld_y) {
  const ProfileScope scope(Kernel::kProduct, flops_of(parts, m), floats_of(parts, m));
  const std::int64_t k = parts.front().w.columns;
  const std::int64_t tiles = tiles_of(m);
  thread_local std::vector<float> packed_x, packed_h;
  grow(packed_x, tiles * kM * k);
  const std::int64_t slice = slice_of(parts);
  for (std::int64_t k0 = 0; k0 < k; k0 += slice) {
    pack_rows(x + k0, ld_x, m, std::min(slice, k - k0), 1.0f, packed_x.data() + k0 * tiles * kM);
  }
  const float* xp = packed_x.data();
  const bool adapted = std::any_of(parts.begin(), parts.end(), [](const auto& p) { return p.lora_b != nullptr; });
  if (adapted) {
    grow(packed_h, tiles * kM * ld_h);
    pack_rows(h, ld_h, m, ld_h, scale, packed_h.data());
  }
  const float* hp = packed_h.data();

  std::int64_t panels = 0;
  for (const ProductPart& p : parts) panels += p.w.rows / kN;
  at::parallel_for(0, panels, 1, [&](std::int64_t begin, std::int64_t end) {
    thread_local std::vector<float> rows, panel;
    grow(rows, kN * slice);
    if (residual != nullptr && residual != y) {
      const auto bytes = static_cast<std::size_t>((end - begin) * kN) * sizeof(float);
      for (std::int64_t r = 0; r < m; ++r)
        std::memcpy(y + r * ld_y + begin * kN, residual + r * ld_y + begin * kN, bytes);
    }
    const auto multiply = [&](const float* a, std::int64_t a_tile, std::int64_t depth, float* out, bool add) {
      for (std::int64_t t = 0; t < m / kM; ++t) {
        tile(depth, a + t * a_tile, panel.data(), out + t * kM * ld_y, ld_y, add);
      }
      if (m % kM != 0) {
        const std::int64_t t = m / kM;
        part_tile(m % kM, depth, a + t * a_tile, panel.data(), out + t * kM * ld_y, ld_y, add);
      }
    };
    // Slice by slice over all panels: a slice of x stays in the second-level cache.
    for (std::int64_t k0 = 0; k0 < k; k0 += slice) {
      const std::int64_t depth = std::min(slice, k - k0);
      for (std::int64_t i = begin; i < end; ++i) {
        const auto [part, row] = panel_at(parts, i);
        const ProductPart& p = parts[part];
        grow(panel, kN * std::max(slice, p.rank));
        if (p.w.type == GGML_TYPE_F32) {
          const auto* from = reinterpret_cast<const float*>(at(p.w, row, k0));
          pack_panel(from, static_cast<std::int64_t>(p.w.row_bytes / sizeof(float)), depth, panel.data());
        } else {
          for (std::int64_t r = 0; r < kN; ++r) unpack(p.w.type, at(p.w, row + r, k0), depth, rows.data() + r * slice);
          pack_panel(rows.data(), slice, depth, panel.data());
        }
        multiply(xp + k0 * tiles * kM, depth * kM, depth, y + i * kN, k0 > 0 || residual != nullptr);
        if (p.lora_b == nullptr || k0 + slice < k) continue;
        pack_panel(p.lora_b + row * p.rank, p.rank, p.rank, panel.data());
        multiply(hp + p.rank_begin * kM, ld_h * kM, p.rank, y + i * kN, true);
      }
    }
  });
}

void frozen_product_backward(std::span<const ProductPart> parts, const float* dy, std::int64_t ld_dy, std::int64_t m,
                             const float* dh, std::int64_t ranks, const float* a, float* dx, std::int64_t ld_dx) {
  const ProfileScope scope(Kernel::kProductBackward, flops_of(parts, m), floats_of(parts, m));
  const std::int64_t k = parts.front().w.columns;
  const std::int64_t tiles = tiles_of(m);
  // Slices of rows of W: each is a depth of the product. dy is packed slice by slice.
  struct Slice {
    const FrozenMatrix* w;  // null: the adapter's a
    std::int64_t row, depth;
    std::int64_t packed_at;
  };
  std::vector<Slice> slices;
  std::int64_t packed_size = 0;
  for (const ProductPart& p : parts) {
    const std::int64_t count = (p.w.rows + kDepth - 1) / kDepth;
    const std::int64_t depth = ((p.w.rows + count - 1) / count + 7) / 8 * 8;
    for (std::int64_t r = 0; r < p.w.rows; r += depth) {
      const std::int64_t d = std::min(depth, p.w.rows - r);
      slices.push_back({&p.w, r, d, packed_size});
      packed_size += tiles * kM * d;
    }
  }
  if (dh != nullptr) {
    slices.push_back({nullptr, 0, ranks, packed_size});
    packed_size += tiles * kM * ranks;
  }
  thread_local std::vector<float> packed;
  grow(packed, packed_size);
  float* const dyp = packed.data();
  std::int64_t column = 0;
  for (const Slice& s : slices) {
    if (s.w == nullptr) {
      pack_rows(dh, ranks, m, ranks, 1.0f, dyp + s.packed_at);
    } else {
      pack_rows(dy + column, ld_dy, m, s.depth, 1.0f, dyp + s.packed_at);
      column += s.depth;
    }
  }

  std::int64_t block = kN;
  for (const ProductPart& p : parts) {
    block = std::max<std::int64_t>(block, ggml_blck_size(static_cast<ggml_type>(p.w.type)));
  }
  at::parallel_for(0, (k + block - 1) / block, 1, [&](std::int64_t begin, std::int64_t end) {
    thread_local std::vector<float> row, panels;
    // As many columns at once as keep the panels in the second-level cache.
    const std::int64_t most = std::max<std::int64_t>(1, kWidth / block);
    for (std::int64_t first = begin; first < end; first += most) {
      const std::int64_t c0 = first * block;
      const std::int64_t width = std::min(std::min(first + most, end) * block, k) - c0;
      grow(row, width);
      for (std::size_t si = 0; si < slices.size(); ++si) {
        const Slice& s = slices[si];
        grow(panels, width * s.depth);
        for (std::int64_t r = 0; r < s.depth; ++r) {
          const float* from = row.data();
          if (s.w == nullptr) {
            from = a + r * k + c0;
          } else if (s.w->type == GGML_TYPE_F32) {
            from = reinterpret_cast<const float*>(at(*s.w, s.row + r, c0));
          } else {
            unpack(s.w->type, at(*s.w, s.row + r, c0), width, row.data());
          }
          for (std::int64_t j = 0; j < width; j += kN) {
            float* to = panels.data() + j * s.depth + r * kN;
            store(to, load(from + j));
            store(to + kLanes, load(from + j + kLanes));
          }
        }
        for (std::int64_t j = 0; j < width; j += kN) {
          const float* panel = panels.data() + j * s.depth;
          float* out = dx + c0 + j;
          const float* ap = dyp + s.packed_at;
          for (std::int64_t t = 0; t < m / kM; ++t) {
            tile(s.depth, ap + t * s.depth * kM, panel, out + t * kM * ld_dx, ld_dx, si > 0);
          }
          if (m % kM != 0) {
            const std::int64_t t = m / kM;
            part_tile(m % kM, s.depth, ap + t * s.depth * kM, panel, out + t * kM * ld_dx, ld_dx, si > 0);
          }
        }
      }
    }
  });
}

void thin_product(std::int64_t m, std::int64_t n, std::int64_t k, const float* a, std::int64_t a_row,
                  std::int64_t a_col, const float* b, std::int64_t ld_b, float* c, std::int64_t ld_c, bool add) {
  const ProfileScope scope = ProfileScope::product(Kernel::kAdapterProduct, m, n, k);
  if (m >= n) {
    at::parallel_for(0, tiles_of(m), std::max<std::int64_t>(1, 65536 / (kM * n * k)),
                     [&](std::int64_t begin, std::int64_t end) {
                       const std::int64_t i0 = begin * kM;
                       const std::int64_t i1 = std::min(m, end * kM);
                       small_gemm(i1 - i0, n, k, a + i0 * a_row, a_row, a_col, b, ld_b, c + i0 * ld_c, ld_c, add);
                     });
    return;
  }
  at::parallel_for(0, (n + kN - 1) / kN, std::max<std::int64_t>(1, 65536 / (kN * m * k)),
                   [&](std::int64_t begin, std::int64_t end) {
                     const std::int64_t j0 = begin * kN;
                     const std::int64_t j1 = std::min(n, end * kN);
                     small_gemm(m, j1 - j0, k, a, a_row, a_col, b + j0, ld_b, c + j0, ld_c, add);
                   });
}

}  // namespace tailor::tune::decoder
