#pragma once
/// The element-wise work and the attention of an encoder, on plain row-major f32 arrays. Every kernel is deterministic
/// for any number of threads: a value is summed by one thread in one order.
// Legend: T tokens of all rows packed one after another, d model width, H heads, e = d / H head width, R rows.

#include <cstdint>
#include <span>

namespace tailor::tune {

/// Where dropout acts: the mask is a function of the element's index, so that backward makes it again.
struct DropoutSite {
  std::uint64_t seed = 0;  // of this place in this step
  double probability = 0;  // 0: off
};

/// s = residual + dropout(h + bias);  x_hat = (s - mean) / sqrt(var + eps);  y = x_hat gamma + beta.
/// h [T, d] becomes x_hat; rstd [T]; bias, residual and beta may be null. LayerNorm: Ba et al., arXiv:1607.06450.
void add_norm_forward(float* h_to_x_hat, const float* bias, const float* residual, const float* gamma,
                      const float* beta, std::int64_t tokens, std::int64_t d, float eps, const DropoutSite& dropout,
                      float* y, float* rstd);

/// dy [T, d] in; ds [T, d] out (gradient of s, hence of the residual); dh [T, d] out where dropout acts, else null (dh
/// = ds). d_gamma, d_beta, d_bias are added to; each may be null.
void add_norm_backward(const float* dy, const float* x_hat, const float* rstd, const float* gamma, std::int64_t tokens,
                       std::int64_t d, const DropoutSite& dropout, float* ds, float* dh, float* d_gamma, float* d_beta,
                       float* d_bias);

/// y = gelu(u + bias), gelu(x) = x Phi(x) (exact, not the tanh form).  u, y [T, width].
void gelu_forward(const float* u, const float* bias, std::int64_t tokens, std::int64_t width, float* y);
/// du = dy gelu'(u + bias); du may be dy.
void gelu_backward(const float* dy, const float* u, const float* bias, std::int64_t tokens, std::int64_t width,
                   float* du);

/// sums[c] += sum over t of x[t, c]; x has `stride` floats a row.
void add_column_sums(const float* x, std::int64_t tokens, std::int64_t width, std::int64_t stride, float* sums);

/// y = x dropout_factor.  x, y [n]; y may be x.
void apply_dropout(const float* x, std::int64_t n, const DropoutSite& dropout, float* y);

/// y = gelu(a) g of u = [a, g], the exact form as above (GEGLU: Shazeer, arXiv:2002.05202).  u [T, 2 width], y
/// [T, width].
void gated_gelu_forward(const float* u, std::int64_t tokens, std::int64_t width, float* y);
/// du [T, 2 width] is overwritten.
void gated_gelu_backward(const float* dy, const float* u, std::int64_t tokens, std::int64_t width, float* du);

/// What a layer's attention sees, and how it knows places.
struct AttentionView {
  std::int64_t reach = -1;  // a token sees so many to either side; -1: all of its row
  /// [places, e]: cosine and sine of pair i at 2 i and 2 i + 1. Values c and c + e / 2 of queries and keys are a pair
  /// and turn (Su et al., arXiv:2104.09864); null: they do not.
  const float* rotary = nullptr;
};

/// Bidirectional attention inside each row: out = softmax(q k^T / sqrt(e)) v.  qkv [T, 3 d] (q, k, v side by side), out
/// [T, d]; row r is tokens offsets[r] to offsets[r + 1]. Scores are kept for 64 queries at a time, never for all; keys
/// out of their reach are not computed.
void attention_forward(const float* qkv, std::span<const std::int64_t> offsets, std::int64_t heads, std::int64_t d,
                       float* out, const AttentionView& view = {});
/// Recomputes the scores. d_qkv [T, 3 d] is overwritten.
void attention_backward(const float* d_out, const float* qkv, std::span<const std::int64_t> offsets, std::int64_t heads,
                        std::int64_t d, float* d_qkv, const AttentionView& view = {});

/// out[r] = mean over the row's tokens of x.  x [T, d], out [R, d].
void mean_pool_forward(const float* x, std::span<const std::int64_t> offsets, std::int64_t d, float* out);
void mean_pool_backward(const float* d_out, std::span<const std::int64_t> offsets, std::int64_t d, float* dx);

/// out[t] = tokens[ids[t]] + positions[places[t]] + types[kinds[t]]; no kinds: all 0; positions and types may be null.
/// out [T, d].
void embed_forward(const float* tokens, std::span<const std::int32_t> ids, const float* positions,
                   std::span<const std::int32_t> places, const float* types, std::span<const std::uint8_t> kinds,
                   std::int64_t d, float* out);
/// Adds dy's rows to the tables' gradients; each may be null.
void embed_backward(const float* dy, std::span<const std::int32_t> ids, std::span<const std::int32_t> places,
                    std::span<const std::uint8_t> kinds, std::int64_t d, float* d_tokens, float* d_positions,
                    float* d_types);

}  // namespace tailor::tune
