#include "tune/encoder_kernels.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>

#include "tune/profile.h"
#include "tune/vector_math.h"

namespace tailor::tune {
namespace {

using simd::F8;
using simd::load;
using simd::load_part;
using simd::splat;
using simd::store;
using simd::store_part;

constexpr std::int64_t kGrainFloats = 8192;  // below this a second thread costs more than it saves

std::int64_t row_grain(std::int64_t width) {
  return std::max<std::int64_t>(1, kGrainFloats / std::max<std::int64_t>(1, width));
}

simd::Dropout prepare(const DropoutSite& site) {
  simd::Dropout d;
  if (site.probability <= 0) return d;
  d.seed = static_cast<std::uint32_t>(site.seed ^ (site.seed >> 32));
  d.threshold = static_cast<std::uint32_t>(std::min(site.probability * 4294967296.0, 4294967295.0));
  d.scale = static_cast<float>(1.0 / (1.0 - site.probability));
  return d;
}

/// Calls body(first column, columns) for groups of at most 8 columns, split over threads.
template <typename Body>
void for_columns(std::int64_t width, std::int64_t tokens, const Body& body) {
  const std::int64_t groups = (width + 7) / 8;
  const std::int64_t grain = std::max<std::int64_t>(1, kGrainFloats / std::max<std::int64_t>(1, 8 * tokens));
  at::parallel_for(0, groups, grain, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t g = begin; g < end; ++g) body(8 * g, std::min<std::int64_t>(8, width - 8 * g));
  });
}

}  // namespace

void add_norm_forward(float* h, const float* bias, const float* residual, const float* gamma, const float* beta,
                      std::int64_t tokens, std::int64_t d, float eps, const DropoutSite& site, float* y, float* rstd) {
  const ProfileScope scope(Kernel::kNorm, 9 * static_cast<double>(tokens * d),
                           static_cast<double>(tokens * d) * (residual != nullptr ? 4 : 3));
  const simd::Dropout drop = prepare(site);
  at::parallel_for(0, tokens, row_grain(d), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t t = begin; t < end; ++t) {
      float* row = h + t * d;
      F8 total = {};
      for (std::int64_t c = 0; c < d; c += 8) {
        const std::int64_t n = std::min<std::int64_t>(8, d - c);
        F8 s = load_part(row + c, n);
        if (bias != nullptr) s += load_part(bias + c, n);
        if (drop.threshold != 0) s *= simd::dropout_factor(drop, static_cast<std::uint32_t>(t * d + c));
        if (residual != nullptr) s += load_part(residual + t * d + c, n);
        store_part(row + c, s, n);
        total += n == 8 ? s : load_part(row + c, n);
      }
      const float mean = simd::sum(total) / static_cast<float>(d);
      F8 squares = {};
      for (std::int64_t c = 0; c < d; c += 8) {
        const std::int64_t n = std::min<std::int64_t>(8, d - c);
        F8 v = load_part(row + c, n) - mean;
        store_part(row + c, v, n);
        if (n < 8) v = load_part(row + c, n);
        squares += v * v;
      }
      const float r = 1.0f / std::sqrt(simd::sum(squares) / static_cast<float>(d) + eps);
      rstd[t] = r;
      for (std::int64_t c = 0; c < d; c += 8) {
        const std::int64_t n = std::min<std::int64_t>(8, d - c);
        const F8 x = load_part(row + c, n) * r;
        store_part(row + c, x, n);
        F8 scaled = x * load_part(gamma + c, n);
        if (beta != nullptr) scaled += load_part(beta + c, n);
        store_part(y + t * d + c, scaled, n);
      }
    }
  });
}

void add_norm_backward(const float* dy, const float* x_hat, const float* rstd, const float* gamma, std::int64_t tokens,
                       std::int64_t d, const DropoutSite& site, float* ds, float* dh, float* d_gamma, float* d_beta,
                       float* d_bias) {
  const ProfileScope scope(Kernel::kNormBackward, 12 * static_cast<double>(tokens * d),
                           static_cast<double>(tokens * d) * (dh != nullptr ? 4 : 3));
  const simd::Dropout drop = prepare(site);
  if (d_gamma != nullptr || d_beta != nullptr) {
    for_columns(d, tokens, [&](std::int64_t c, std::int64_t n) {
      F8 g = {};
      F8 b = {};
      for (std::int64_t t = 0; t < tokens; ++t) {
        const F8 grad = load_part(dy + t * d + c, n);
        g += grad * load_part(x_hat + t * d + c, n);
        b += grad;
      }
      if (d_gamma != nullptr) store_part(d_gamma + c, load_part(d_gamma + c, n) + g, n);
      if (d_beta != nullptr) store_part(d_beta + c, load_part(d_beta + c, n) + b, n);
    });
  }
  const float inverse_d = 1.0f / static_cast<float>(d);
  at::parallel_for(0, tokens, row_grain(d), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t t = begin; t < end; ++t) {
      const float* grad = dy + t * d;
      const float* x = x_hat + t * d;
      F8 sum_g = {};
      F8 sum_gx = {};
      for (std::int64_t c = 0; c < d; c += 8) {
        const std::int64_t n = std::min<std::int64_t>(8, d - c);
        const F8 g = load_part(grad + c, n) * load_part(gamma + c, n);
        sum_g += g;
        sum_gx += g * load_part(x + c, n);
      }
      const float mean_g = simd::sum(sum_g) * inverse_d;
      const float mean_gx = simd::sum(sum_gx) * inverse_d;
      for (std::int64_t c = 0; c < d; c += 8) {
        const std::int64_t n = std::min<std::int64_t>(8, d - c);
        const F8 g = load_part(grad + c, n) * load_part(gamma + c, n);
        const F8 s = (g - mean_g - load_part(x + c, n) * mean_gx) * rstd[t];
        store_part(ds + t * d + c, s, n);
        if (dh != nullptr)
          store_part(dh + t * d + c, s * simd::dropout_factor(drop, static_cast<std::uint32_t>(t * d + c)), n);
      }
    }
  });
  if (d_bias != nullptr) add_column_sums(dh != nullptr ? dh : ds, tokens, d, d, d_bias);
}

void gelu_forward(const float* u, const float* bias, std::int64_t tokens, std::int64_t width, float* y) {
  const ProfileScope scope(Kernel::kActivation, 25 * static_cast<double>(tokens * width),
                           2 * static_cast<double>(tokens * width));
  at::parallel_for(0, tokens, row_grain(width), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t t = begin; t < end; ++t) {
      for (std::int64_t c = 0; c < width; c += 8) {
        const std::int64_t n = std::min<std::int64_t>(8, width - c);
        const F8 x = load_part(u + t * width + c, n) + load_part(bias + c, n);
        store_part(y + t * width + c, x * simd::normal(x).cdf, n);
      }
    }
  });
}

void gelu_backward(const float* dy, const float* u, const float* bias, std::int64_t tokens, std::int64_t width,
                   float* du) {
  const ProfileScope scope(Kernel::kActivationBackward, 35 * static_cast<double>(tokens * width),
                           3 * static_cast<double>(tokens * width));
  at::parallel_for(0, tokens, row_grain(width), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t t = begin; t < end; ++t) {
      for (std::int64_t c = 0; c < width; c += 8) {
        const std::int64_t n = std::min<std::int64_t>(8, width - c);
        const F8 x = load_part(u + t * width + c, n) + load_part(bias + c, n);
        const simd::Normal p = simd::normal(x);
        store_part(du + t * width + c, load_part(dy + t * width + c, n) * (p.cdf + x * p.density), n);
      }
    }
  });
}

void gated_gelu_forward(const float* u, std::int64_t tokens, std::int64_t width, float* y) {
  const ProfileScope scope(Kernel::kActivation, 26 * static_cast<double>(tokens * width),
                           3 * static_cast<double>(tokens * width));
  at::parallel_for(0, tokens, row_grain(width), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t t = begin; t < end; ++t) {
      const float* row = u + t * 2 * width;
      for (std::int64_t c = 0; c < width; c += 8) {
        const std::int64_t n = std::min<std::int64_t>(8, width - c);
        const F8 x = load_part(row + c, n);
        store_part(y + t * width + c, x * simd::normal(x).cdf * load_part(row + width + c, n), n);
      }
    }
  });
}

void gated_gelu_backward(const float* dy, const float* u, std::int64_t tokens, std::int64_t width, float* du) {
  const ProfileScope scope(Kernel::kActivationBackward, 38 * static_cast<double>(tokens * width),
                           5 * static_cast<double>(tokens * width));
  at::parallel_for(0, tokens, row_grain(width), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t t = begin; t < end; ++t) {
      const float* row = u + t * 2 * width;
      float* to = du + t * 2 * width;
      for (std::int64_t c = 0; c < width; c += 8) {
        const std::int64_t n = std::min<std::int64_t>(8, width - c);
        const F8 x = load_part(row + c, n), grad = load_part(dy + t * width + c, n);
        const simd::Normal p = simd::normal(x);
        store_part(to + c, grad * load_part(row + width + c, n) * (p.cdf + x * p.density), n);
        store_part(to + width + c, grad * x * p.cdf, n);
      }
    }
  });
}

void add_column_sums(const float* x, std::int64_t tokens, std::int64_t width, std::int64_t stride, float* sums) {
  const ProfileScope scope(Kernel::kWeightGradient, static_cast<double>(tokens * width),
                           static_cast<double>(tokens * width));
  for_columns(width, tokens, [&](std::int64_t c, std::int64_t n) {
    F8 total = {};
    for (std::int64_t t = 0; t < tokens; ++t) total += load_part(x + t * stride + c, n);
    store_part(sums + c, load_part(sums + c, n) + total, n);
  });
}

void apply_dropout(const float* x, std::int64_t n, const DropoutSite& site, float* y) {
  const simd::Dropout drop = prepare(site);
  at::parallel_for(0, (n + 7) / 8, kGrainFloats / 8, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = 8 * begin; i < std::min(n, 8 * end); i += 8) {
      const std::int64_t part = std::min<std::int64_t>(8, n - i);
      store_part(y + i, load_part(x + i, part) * simd::dropout_factor(drop, static_cast<std::uint32_t>(i)), part);
    }
  });
}

void mean_pool_forward(const float* x, std::span<const std::int64_t> offsets, std::int64_t d, float* out) {
  const auto rows = static_cast<std::int64_t>(offsets.size()) - 1;
  at::parallel_for(0, rows, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t r = begin; r < end; ++r) {
      const float scale = 1.0f / static_cast<float>(offsets[r + 1] - offsets[r]);
      for (std::int64_t c = 0; c < d; c += 8) {
        const std::int64_t n = std::min<std::int64_t>(8, d - c);
        F8 total = {};
        for (std::int64_t t = offsets[r]; t < offsets[r + 1]; ++t) total += load_part(x + t * d + c, n);
        store_part(out + r * d + c, total * scale, n);
      }
    }
  });
}

void mean_pool_backward(const float* d_out, std::span<const std::int64_t> offsets, std::int64_t d, float* dx) {
  const auto rows = static_cast<std::int64_t>(offsets.size()) - 1;
  at::parallel_for(0, rows, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t r = begin; r < end; ++r) {
      const float scale = 1.0f / static_cast<float>(offsets[r + 1] - offsets[r]);
      for (std::int64_t t = offsets[r]; t < offsets[r + 1]; ++t) {
        for (std::int64_t c = 0; c < d; ++c) dx[t * d + c] = d_out[r * d + c] * scale;
      }
    }
  });
}

static void add_row(const float* from, std::int64_t d, float* to) {
  for (std::int64_t c = 0; c < d; ++c) to[c] += from[c];
}

void embed_forward(const float* tokens, std::span<const std::int32_t> ids, const float* positions,
                   std::span<const std::int32_t> places, const float* types, std::span<const std::uint8_t> kinds,
                   std::int64_t d, float* out) {
  const ProfileScope scope(Kernel::kEmbedding, 0, 3 * static_cast<double>(d) * static_cast<double>(ids.size()));
  at::parallel_for(0, static_cast<std::int64_t>(ids.size()), row_grain(d), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t t = begin; t < end; ++t) {
      const float* a = tokens + ids[t] * d;
      if (positions == nullptr || types == nullptr) {
        std::copy_n(a, d, out + t * d);
        if (positions != nullptr) add_row(positions + places[t] * d, d, out + t * d);
        if (types != nullptr)
          add_row(types + (kinds.empty() ? 0 : kinds[static_cast<std::size_t>(t)]) * d, d, out + t * d);
        continue;
      }
      const float* b = positions + places[t] * d;
      const float* type = types + (kinds.empty() ? 0 : kinds[static_cast<std::size_t>(t)]) * d;
      for (std::int64_t c = 0; c < d; ++c) out[t * d + c] = a[c] + b[c] + type[c];
    }
  });
}

void embed_backward(const float* dy, std::span<const std::int32_t> ids, std::span<const std::int32_t> places,
                    std::span<const std::uint8_t> kinds, std::int64_t d, float* d_tokens, float* d_positions,
                    float* d_types) {
  const ProfileScope scope(Kernel::kEmbedding, static_cast<double>(d) * static_cast<double>(ids.size()),
                           3 * static_cast<double>(d) * static_cast<double>(ids.size()));
  const auto n_tokens = static_cast<std::int64_t>(ids.size());
  // Threads own columns, not tokens: the same word may stand in many rows.
  const std::int64_t grain = std::max<std::int64_t>(16, kGrainFloats / std::max<std::int64_t>(1, n_tokens));
  at::parallel_for(0, d, grain, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t t = 0; t < n_tokens; ++t) {
      const float* grad = dy + t * d;
      if (d_tokens != nullptr) {
        float* to = d_tokens + ids[t] * d;
        for (std::int64_t c = begin; c < end; ++c) to[c] += grad[c];
      }
      if (d_positions != nullptr) {
        float* to = d_positions + places[t] * d;
        for (std::int64_t c = begin; c < end; ++c) to[c] += grad[c];
      }
      if (d_types != nullptr) {
        float* to = d_types + (kinds.empty() ? 0 : kinds[static_cast<std::size_t>(t)]) * d;
        for (std::int64_t c = begin; c < end; ++c) to[c] += grad[c];
      }
    }
  });
}

}  // namespace tailor::tune
