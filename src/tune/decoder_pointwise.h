#pragma once
/// What a decoder does to single rows on plain f32 memory, forward and backward: norms, activations, rotary positions.
/// Matrices are row-major; "ld" is the distance between rows in floats. Built with relaxed floating-point rules
/// (reassociation, fused multiply-add). Threads: each call runs on at::parallel_for and may be made from one thread at
/// a time.

#include <cstdint>

#include "tune/decoder_config.h"

namespace tailor::tune::decoder {

/// y = x / sqrt(mean(x^2) + eps) * w over rows of n floats (Zhang and Sennrich, arXiv:1910.07467).
/// `inverse_rms` [rows] may be null.
void rms_norm(const float* x, const float* w, float eps, std::int64_t rows, std::int64_t n, float* y,
              float* inverse_rms);
/// The same from a stored inverse_rms: y = x * inverse_rms * w.
void rms_norm_again(const float* x, const float* w, const float* inverse_rms, std::int64_t rows, std::int64_t n,
                    float* y);
/// dx = gradient of x; dw [n] is added to where not null.
void rms_norm_backward(const float* dy, const float* x, const float* w, const float* inverse_rms, std::int64_t rows,
                       std::int64_t n, float* dx, float* dw);

/// y = (x - mean) / sqrt(variance + eps) * w + b (Ba et al., arXiv:1607.06450); b may be null. mean, inverse_std [rows]
/// may be null; `layer_norm_again` reads them.
void layer_norm(const float* x, const float* w, const float* b, float eps, std::int64_t rows, std::int64_t n, float* y,
                float* mean, float* inverse_std);
void layer_norm_again(const float* x, const float* w, const float* b, const float* mean, const float* inverse_std,
                      std::int64_t rows, std::int64_t n, float* y);
/// dw, db [n] are added to where not null.
void layer_norm_backward(const float* dy, const float* x, const float* w, const float* mean, const float* inverse_std,
                         std::int64_t rows, std::int64_t n, float* dx, float* dw, float* db);

/// RMS norm of every head: `heads` runs of `dim` floats in rows that are `ld` apart; y may be x. inverse_rms
/// [rows, heads].
void head_norm(const float* x, const float* w, float eps, std::int64_t rows, std::int64_t ld, std::int64_t heads,
               std::int64_t dim, float* y, float* inverse_rms);
/// dx has dy's spacing and may be dy; dw [dim] is added to where not null.
void head_norm_backward(const float* dy, const float* x, const float* w, const float* inverse_rms, std::int64_t rows,
                        std::int64_t ld, std::int64_t heads, std::int64_t dim, float* dx, float* dw);

/// h [rows, n] of x [rows, 2n] (gate first, then what it opens for) or [rows, n].
void activate(Activation kind, const float* x, std::int64_t rows, std::int64_t n, float* h);
void activate_backward(Activation kind, const float* dh, const float* x, std::int64_t rows, std::int64_t n, float* dx);

/// Rotary embedding (Su et al., arXiv:2104.09864) of pairs (2i, 2i + 1), or with `halves` (i, i + rotary / 2), i <
/// rotary / 2. `table` holds cos and sin, [positions, rotary]: cos of pair i at 2i, sin at 2i + 1. src may equal dst.
/// `inverse` turns back.
struct RopeShape {
  std::int64_t heads = 0;
  std::int64_t head_dim = 0;
  std::int64_t rotary = 0;
  bool halves = false;
};
void rope(const RopeShape& shape, const float* table, const std::int64_t* positions, std::int64_t rows,
          const float* src, std::int64_t ld_src, float* dst, std::int64_t ld_dst, bool inverse);

/// x = cap * tanh(x / cap), in place.
void softcap(float* x, std::int64_t n, float cap);

}  // namespace tailor::tune::decoder
