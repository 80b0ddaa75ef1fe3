// Sums may be reassociated and products fused in this file only.
#pragma GCC optimize("O3,fast-math")

#include "tune/decoder_pointwise.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>

#include "tune/profile.h"
#include "tune/vector_math.h"

namespace tailor::tune::decoder {
namespace {

using simd::F8;
using simd::load_part;
using simd::splat;
using simd::store_part;

constexpr std::int64_t kRowsATask = 16;

struct Pair {
  F8 value, slope;
};

inline Pair silu(F8 g) {
  const F8 s = splat(1) / (splat(1) + simd::exp(-g));
  return {g * s, s * (splat(1) + g * (splat(1) - s))};
}

inline F8 tanh8(F8 x) {
  const F8 e = simd::exp(simd::absolute(x) * -2.0f);
  const F8 t = (splat(1) - e) / (splat(1) + e);
  return x < 0.0f ? -t : t;
}

/// Hendrycks and Gimpel's approximation: x / 2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))).
inline Pair gelu_tanh(F8 x) {
  constexpr float kRoot = 0.7978845608028654f, kCube = 0.044715f;
  const F8 t = tanh8(kRoot * (x + kCube * x * x * x));
  const F8 inner = kRoot * (1.0f + 3.0f * kCube * x * x);
  return {0.5f * x * (1.0f + t), 0.5f * (1.0f + t) + 0.5f * x * (1.0f - t * t) * inner};
}

inline Pair gelu_exact(F8 x) {
  const simd::Normal n = simd::normal(x);
  return {x * n.cdf, n.cdf + x * n.density};
}

inline Pair curve(Activation kind, F8 x) {
  switch (kind) {
    case Activation::kSwiglu:
      return silu(x);
    case Activation::kGeluExact:
      return gelu_exact(x);
    default:
      return gelu_tanh(x);
  }
}

template <Activation kind>
void activate_rows(const float* x, std::int64_t rows, std::int64_t n, float* h) {
  const std::int64_t width = is_gated(kind) ? 2 * n : n;
  at::parallel_for(0, rows, 4, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t r = begin; r < end; ++r) {
      const float* gate = x + r * width;
      for (std::int64_t i = 0; i < n; i += 8) {
        F8 y = curve(kind, load_part(gate + i, n - i)).value;
        if constexpr (is_gated(kind)) y *= load_part(gate + n + i, n - i);
        store_part(h + r * n + i, y, n - i);
      }
    }
  });
}

template <Activation kind>
void activate_rows_backward(const float* dh, const float* x, std::int64_t rows, std::int64_t n, float* dx) {
  const std::int64_t width = is_gated(kind) ? 2 * n : n;
  at::parallel_for(0, rows, 4, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t r = begin; r < end; ++r) {
      const float* gate = x + r * width;
      float* to = dx + r * width;
      for (std::int64_t i = 0; i < n; i += 8) {
        const Pair c = curve(kind, load_part(gate + i, n - i));
        const F8 d = load_part(dh + r * n + i, n - i);
        if constexpr (is_gated(kind)) {
          store_part(to + n + i, d * c.value, n - i);
          store_part(to + i, d * load_part(gate + n + i, n - i) * c.slope, n - i);
        } else {
          store_part(to + i, d * c.slope, n - i);
        }
      }
    }
  });
}

float sum_of_squares(const float* x, std::int64_t n) {
  F8 s = {};
  for (std::int64_t i = 0; i < n; i += 8) {
    const F8 v = load_part(x + i, n - i);
    s += v * v;
  }
  return simd::sum(s);
}

float rms_row(const float* x, const float* w, float eps, std::int64_t n, float* y) {
  const float inverse = 1.0f / std::sqrt(sum_of_squares(x, n) / static_cast<float>(n) + eps);
  for (std::int64_t i = 0; i < n; ++i) y[i] = x[i] * inverse * w[i];
  return inverse;
}

/// y = x r w with r = (mean x^2 + eps)^-1/2:  dx = r (w dy) - x r^3 / n * sum(x w dy).
void rms_row_backward(const float* dy, const float* x, const float* w, float r, std::int64_t n, float* dx) {
  float s = 0;
  for (std::int64_t i = 0; i < n; ++i) s += dy[i] * w[i] * x[i];
  const float c = s * r * r / static_cast<float>(n);
  for (std::int64_t i = 0; i < n; ++i) dx[i] = r * (dy[i] * w[i] - c * x[i]);
}

}  // namespace

void rms_norm(const float* x, const float* w, float eps, std::int64_t rows, std::int64_t n, float* y,
              float* inverse_rms) {
  const ProfileScope scope(Kernel::kNorm, 4 * static_cast<double>(rows * n), 2 * static_cast<double>(rows * n));
  at::parallel_for(0, rows, kRowsATask, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t r = begin; r < end; ++r) {
      const float inverse = rms_row(x + r * n, w, eps, n, y + r * n);
      if (inverse_rms != nullptr) inverse_rms[r] = inverse;
    }
  });
}

void rms_norm_again(const float* x, const float* w, const float* inverse_rms, std::int64_t rows, std::int64_t n,
                    float* y) {
  const ProfileScope scope(Kernel::kNorm, 2 * static_cast<double>(rows * n), 2 * static_cast<double>(rows * n));
  at::parallel_for(0, rows, kRowsATask, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t r = begin; r < end; ++r) {
      const float inverse = inverse_rms[r];
      for (std::int64_t i = 0; i < n; ++i) y[r * n + i] = x[r * n + i] * inverse * w[i];
    }
  });
}

void rms_norm_backward(const float* dy, const float* x, const float* w, const float* inverse_rms, std::int64_t rows,
                       std::int64_t n, float* dx, float* dw) {
  const ProfileScope scope(Kernel::kNormBackward, 7 * static_cast<double>(rows * n), 3 * static_cast<double>(rows * n));
  // dy is read before dx is written: the two may be the same.
  if (dw != nullptr) {
    at::parallel_for(0, n, 64, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t row = 0; row < rows; ++row) {
        for (std::int64_t i = begin; i < end; ++i) dw[i] += dy[row * n + i] * x[row * n + i] * inverse_rms[row];
      }
    });
  }
  at::parallel_for(0, rows, kRowsATask, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t r = begin; r < end; ++r)
      rms_row_backward(dy + r * n, x + r * n, w, inverse_rms[r], n, dx + r * n);
  });
}

void layer_norm(const float* x, const float* w, const float* b, float eps, std::int64_t rows, std::int64_t n, float* y,
                float* mean, float* inverse_std) {
  const ProfileScope scope(Kernel::kNorm, 7 * static_cast<double>(rows * n), 2 * static_cast<double>(rows * n));
  at::parallel_for(0, rows, kRowsATask, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t r = begin; r < end; ++r) {
      const float* xr = x + r * n;
      float* yr = y + r * n;
      float m = 0;
      for (std::int64_t i = 0; i < n; ++i) m += xr[i];
      m /= static_cast<float>(n);
      float v = 0;
      for (std::int64_t i = 0; i < n; ++i) v += (xr[i] - m) * (xr[i] - m);
      const float inverse = 1.0f / std::sqrt(v / static_cast<float>(n) + eps);
      for (std::int64_t i = 0; i < n; ++i) yr[i] = (xr[i] - m) * inverse * w[i] + (b == nullptr ? 0.0f : b[i]);
      if (mean != nullptr) mean[r] = m;
      if (inverse_std != nullptr) inverse_std[r] = inverse;
    }
  });
}

void layer_norm_again(const float* x, const float* w, const float* b, const float* mean, const float* inverse_std,
                      std::int64_t rows, std::int64_t n, float* y) {
  const ProfileScope scope(Kernel::kNorm, 4 * static_cast<double>(rows * n), 2 * static_cast<double>(rows * n));
  at::parallel_for(0, rows, kRowsATask, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t r = begin; r < end; ++r) {
      for (std::int64_t i = 0; i < n; ++i)
        y[r * n + i] = (x[r * n + i] - mean[r]) * inverse_std[r] * w[i] + (b == nullptr ? 0.0f : b[i]);
    }
  });
}

void layer_norm_backward(const float* dy, const float* x, const float* w, const float* mean, const float* inverse_std,
                         std::int64_t rows, std::int64_t n, float* dx, float* dw, float* db) {
  const ProfileScope scope(Kernel::kNormBackward, 11 * static_cast<double>(rows * n),
                           3 * static_cast<double>(rows * n));
  if (dw != nullptr || db != nullptr) {
    at::parallel_for(0, n, 64, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t r = 0; r < rows; ++r) {
        const float* g = dy + r * n;
        const float* xr = x + r * n;
        if (dw != nullptr) {
          for (std::int64_t i = begin; i < end; ++i) dw[i] += g[i] * (xr[i] - mean[r]) * inverse_std[r];
        }
        if (db != nullptr) {
          for (std::int64_t i = begin; i < end; ++i) db[i] += g[i];
        }
      }
    });
  }
  // With z = (x - m) s:  dx = s (w dy - mean(w dy) - z mean(z w dy)).
  at::parallel_for(0, rows, kRowsATask, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t r = begin; r < end; ++r) {
      const float* g = dy + r * n;
      const float* xr = x + r * n;
      float* d = dx + r * n;
      const float m = mean[r], s = inverse_std[r];
      float plain = 0, along = 0;
      for (std::int64_t i = 0; i < n; ++i) {
        const float wg = w[i] * g[i];
        plain += wg;
        along += wg * (xr[i] - m) * s;
      }
      plain /= static_cast<float>(n);
      along /= static_cast<float>(n);
      for (std::int64_t i = 0; i < n; ++i) d[i] = s * (w[i] * g[i] - plain - (xr[i] - m) * s * along);
    }
  });
}

void head_norm(const float* x, const float* w, float eps, std::int64_t rows, std::int64_t ld, std::int64_t heads,
               std::int64_t dim, float* y, float* inverse_rms) {
  const ProfileScope scope(Kernel::kNorm, 4 * static_cast<double>(rows * heads * dim),
                           2 * static_cast<double>(rows * heads * dim));
  at::parallel_for(0, rows, kRowsATask, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t r = begin; r < end; ++r) {
      for (std::int64_t h = 0; h < heads; ++h) {
        const std::int64_t at = r * ld + h * dim;
        inverse_rms[r * heads + h] = rms_row(x + at, w, eps, dim, y + at);
      }
    }
  });
}

void head_norm_backward(const float* dy, const float* x, const float* w, const float* inverse_rms, std::int64_t rows,
                        std::int64_t ld, std::int64_t heads, std::int64_t dim, float* dx, float* dw) {
  const ProfileScope scope(Kernel::kNormBackward, 7 * static_cast<double>(rows * heads * dim),
                           3 * static_cast<double>(rows * heads * dim));
  if (dw != nullptr) {
    for (std::int64_t r = 0; r < rows; ++r) {
      for (std::int64_t h = 0; h < heads; ++h) {
        const std::int64_t at = r * ld + h * dim;
        for (std::int64_t i = 0; i < dim; ++i) dw[i] += dy[at + i] * x[at + i] * inverse_rms[r * heads + h];
      }
    }
  }
  at::parallel_for(0, rows, kRowsATask, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t r = begin; r < end; ++r) {
      for (std::int64_t h = 0; h < heads; ++h) {
        const std::int64_t at = r * ld + h * dim;
        rms_row_backward(dy + at, x + at, w, inverse_rms[r * heads + h], dim, dx + at);
      }
    }
  });
}

void activate(Activation kind, const float* x, std::int64_t rows, std::int64_t n, float* h) {
  const ProfileScope scope(Kernel::kActivation, 20 * static_cast<double>(rows * n),
                           static_cast<double>(rows * n) * (is_gated(kind) ? 3 : 2));
  switch (kind) {
    case Activation::kSwiglu:
      return activate_rows<Activation::kSwiglu>(x, rows, n, h);
    case Activation::kGeglu:
      return activate_rows<Activation::kGeglu>(x, rows, n, h);
    case Activation::kGelu:
      return activate_rows<Activation::kGelu>(x, rows, n, h);
    case Activation::kGeluExact:
      return activate_rows<Activation::kGeluExact>(x, rows, n, h);
  }
}

void activate_backward(Activation kind, const float* dh, const float* x, std::int64_t rows, std::int64_t n, float* dx) {
  const ProfileScope scope(Kernel::kActivationBackward, 25 * static_cast<double>(rows * n),
                           static_cast<double>(rows * n) * (is_gated(kind) ? 5 : 3));
  switch (kind) {
    case Activation::kSwiglu:
      return activate_rows_backward<Activation::kSwiglu>(dh, x, rows, n, dx);
    case Activation::kGeglu:
      return activate_rows_backward<Activation::kGeglu>(dh, x, rows, n, dx);
    case Activation::kGelu:
      return activate_rows_backward<Activation::kGelu>(dh, x, rows, n, dx);
    case Activation::kGeluExact:
      return activate_rows_backward<Activation::kGeluExact>(dh, x, rows, n, dx);
  }
}

void rope(const RopeShape& shape, const float* table, const std::int64_t* positions, std::int64_t rows,
          const float* src, std::int64_t ld_src, float* dst, std::int64_t ld_dst, bool inverse) {
  const ProfileScope scope(Kernel::kRotary, 3 * static_cast<double>(rows * shape.heads * shape.rotary),
                           2 * static_cast<double>(rows * shape.heads * shape.head_dim));
  const float sign = inverse ? -1.0f : 1.0f;
  const std::int64_t pairs = shape.rotary / 2;
  at::parallel_for(0, rows, kRowsATask, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t r = begin; r < end; ++r) {
      const float* angle = table + positions[r] * shape.rotary;
      for (std::int64_t h = 0; h < shape.heads; ++h) {
        const float* from = src + r * ld_src + h * shape.head_dim;
        float* to = dst + r * ld_dst + h * shape.head_dim;
        if (shape.halves) {
          for (std::int64_t i = 0; i < pairs; ++i) {
            const float c = angle[2 * i], s = sign * angle[2 * i + 1];
            const float a = from[i], b = from[i + pairs];
            to[i] = a * c - b * s;
            to[i + pairs] = a * s + b * c;
          }
        } else {
          for (std::int64_t i = 0; i < shape.rotary; i += 2) {
            const float c = angle[i], s = sign * angle[i + 1];
            const float a = from[i], b = from[i + 1];
            to[i] = a * c - b * s;
            to[i + 1] = a * s + b * c;
          }
        }
        if (from == to) continue;
        for (std::int64_t i = shape.rotary; i < shape.head_dim; ++i) to[i] = from[i];
      }
    }
  });
}

void softcap(float* x, std::int64_t n, float cap) {
  const float inverse = 1.0f / cap;
  at::parallel_for(0, (n + 7) / 8, 4096, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = 8 * begin; i < std::min(n, 8 * end); i += 8)
      store_part(x + i, cap * tanh8(load_part(x + i, n - i) * inverse), n - i);
  });
}

}  // namespace tailor::tune::decoder
