#pragma once
/// The element-wise and attention loops of the llama family on plain f32 memory, forward and backward. Matrices are
/// row-major; "ld" is the distance between rows in floats. Built with relaxed floating-point rules (reassociation,
/// fused multiply-add): results are the same from run to run on the same number of threads and machine.
/// Threads: each call runs on at::parallel_for and may be made from one thread at a time.

#include <cstdint>
#include <span>
#include <vector>

#include "tune/llama_batch.h"

namespace tailor::tune::llama {

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

/// h = silu(gate) * up; gate_up is [rows, 2n], gate first (Shazeer, arXiv:2002.05202).
void swiglu(const float* gate_up, std::int64_t rows, std::int64_t n, float* h);
void swiglu_backward(const float* dh, const float* gate_up, std::int64_t rows, std::int64_t n, float* dgate_up);

/// Rotary embedding of interleaved pairs (2i, 2i + 1), i < rotary / 2 (Su et al., arXiv:2104.09864). `table` holds
/// cos and sin, [positions, rotary]: cos of pair i at 2i, sin at 2i + 1. src may equal dst. `inverse` turns back.
struct RopeShape {
  std::int64_t heads = 0;
  std::int64_t head_dim = 0;
  std::int64_t rotary = 0;
};
void rope(const RopeShape& shape, const float* table, const std::int64_t* positions, std::int64_t rows,
          const float* src, std::int64_t ld_src, float* dst, std::int64_t ld_dst, bool inverse);

/// Causal attention along the paths of a tree, heads in groups that share a key and value head (Ainslie et al.,
/// arXiv:2305.13245). Queries and keys are rotated already.
struct AttentionShape {
  std::int64_t heads = 0;
  std::int64_t kv_heads = 0;
  std::int64_t head_dim = 0;
  float scale = 1;
};
/// q, out [queries, heads * head_dim]; k, v [tokens, kv_heads * head_dim]; lse [queries, heads] is the log of the sum
/// of exp(scores), which the backward pass needs.
struct AttentionData {
  const float* q = nullptr;
  std::int64_t ld_q = 0;
  const float* k = nullptr;
  const float* v = nullptr;
  std::int64_t ld_kv = 0;
};
void attention(const AttentionShape& shape, std::span<const TreeSegment> segments, const QuerySet& queries,
               const AttentionData& data, float* out, std::int64_t ld_out, float* lse);
/// Writes (does not add) dq, dk and dv. What a segment gives to its ancestors' keys and values goes to a buffer of its
/// own and is summed in order afterwards: no races, and the same sum every time.
void attention_backward(const AttentionShape& shape, std::span<const TreeSegment> segments, const QuerySet& queries,
                        const AttentionData& data, const float* out, const float* dout, std::int64_t ld_out,
                        const float* lse, float* dq, std::int64_t ld_dq, float* dk, float* dv, std::int64_t ld_dkv);

/// For row i of logits [rows, n] and its targets (those with node == first_node + i, a run in `targets`):
/// losses[t] = log(sum(exp(logits))) - logits[token]. Where `gradient`, logits becomes d(sum of weight_t * loss_t) with
/// weights as given per target.
void cross_entropy(float* logits, std::int64_t rows, std::int64_t n, std::span<const LabelTarget> targets,
                   std::int64_t first_node, const float* weights, float* losses, bool gradient);

/// c [m, n] = or += a [m, k] b [k, n], where a(i, j) = a[i * a_row + j * a_col]; for the small products of attention.
void small_gemm(std::int64_t m, std::int64_t n, std::int64_t k, const float* a, std::int64_t a_row, std::int64_t a_col,
                const float* b, std::int64_t ld_b, float* c, std::int64_t ld_c, bool add);

}  // namespace tailor::tune::llama
