#pragma once
/// Attention, cross entropy and small products of a decoder on plain f32 memory, forward and backward. Matrices are
/// row-major; "ld" is the distance between rows in floats. Built with relaxed floating-point rules (reassociation,
/// fused multiply-add): results are the same from run to run on the same number of threads and machine.
/// Threads: each call runs on at::parallel_for and may be made from one thread at a time.

#include <cstdint>
#include <span>
#include <vector>

#include "tune/packed_tree.h"

namespace tailor::tune::decoder {

/// Causal attention along the paths of a tree, heads in groups that share a key and value head (Ainslie et al.,
/// arXiv:2305.13245). Queries and keys are rotated already.
struct AttentionShape {
  std::int64_t heads = 0;
  std::int64_t kv_heads = 0;
  std::int64_t head_dim = 0;
  float scale = 1;
  float softcap = 0;              // score = softcap * tanh(scale * qk / softcap): Gemma 2, arXiv:2408.00118; 0: none
  std::int64_t window = 0;        // a token sees so many, itself included; 0: all before it
  const float* slopes = nullptr;  // [heads] ALiBi: slope * position of the key is added; null: none

  bool plain() const { return softcap == 0 && window == 0 && slopes == nullptr; }
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
/// weights as given per target. likeliest[t], where not null: whether no logit is above that of the token.
void cross_entropy(float* logits, std::int64_t rows, std::int64_t n, std::span<const LabelTarget> targets,
                   std::int64_t first_node, const float* weights, float* losses, std::uint8_t* likeliest,
                   bool gradient);

/// c [m, n] = or += a [m, k] b [k, n], where a(i, j) = a[i * a_row + j * a_col]; for the small products of attention.
void small_gemm(std::int64_t m, std::int64_t n, std::int64_t k, const float* a, std::int64_t a_row, std::int64_t a_col,
                const float* b, std::int64_t ld_b, float* c, std::int64_t ld_c, bool add);

}  // namespace tailor::tune::decoder
