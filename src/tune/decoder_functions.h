#pragma once
/// The steps of a decoder block as differentiable functions, each with a backward pass of its own that computes only
/// the gradients somebody needs and keeps only what it cannot compute again cheaply; or, where our own kernels do not
/// serve (kernels.h), as plain ATen. Tensors are f32 and contiguous; n tokens stand in rows. The gradients of
/// parameters are added to their slots directly; autograd sees activations.

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "tune/decoder_kernels.h"
#include "tune/decoder_lora.h"
#include "tune/decoder_pointwise.h"
#include "tune/decoder_weights.h"
#include "tune/packed_tree.h"

namespace tailor::tune::decoder {

/// A group of linear layers, or its outputs [out_begin, out_end), with its adapter. Everything it points to outlives
/// the backward pass.
struct LinearSpec {
  DecoderWeights* weights = nullptr;
  std::int64_t layer = 0;
  LinearGroup group = LinearGroup::kQkv;
  std::int64_t out_begin = 0;
  std::int64_t out_end = -1;  // -1: all
  LoraGroup lora;             // empty: none
  DropoutKey dropout;         // used where lora.dropout > 0 and `training`
  bool training = true;       // false: no dropout

  LinearSpec slice(std::int64_t begin, std::int64_t end) const;
};

struct NormSpec {
  Norm weights;
  NormKind kind = NormKind::kRms;
  double eps = 1e-5;
};

/// y = linear(norm(x)).  x [n, in], y [n, out].
at::Tensor norm_linear(const at::Tensor& x, const NormSpec& norm, const LinearSpec& spec);
/// y = linear(x).
at::Tensor linear(const at::Tensor& x, const LinearSpec& spec);
/// y = residual + linear(x).
at::Tensor linear_add(const at::Tensor& x, const at::Tensor& residual, const LinearSpec& spec);
/// y = linear(act(x)), and with a residual added to it.  x [n, 2 in] where the activation is gated, else [n, in].
at::Tensor activated_linear(const at::Tensor& x, Activation activation, const LinearSpec& spec);
at::Tensor activated_linear_add(const at::Tensor& x, Activation activation, const at::Tensor& residual,
                                const LinearSpec& spec);

/// The same steps alone, where something stands between them.
at::Tensor norm(const at::Tensor& x, const NormSpec& norm);
at::Tensor activated(const at::Tensor& x, Activation activation);
/// RMS norms of each head of the queries and keys in qkv [n, (heads + 2 kv_heads) * head_dim]; `q` may be undefined
/// where the rows are keys and values only, `k` where they are queries only.
at::Tensor head_norms(const at::Tensor& qkv, const Norm& q, const Norm& k, double eps, const DecoderConfig& config);
/// Rows `ids` of a table, [ids, width].
at::Tensor table_rows(const Slot& table, std::span<const std::int64_t> ids);

struct PortablePlan;  // what the portable formulation makes of a plan

/// What attention needs to know of the batch; shared by all layers of a kind, and by the passes.
struct AttentionPlan {
  AttentionShape shape;
  std::vector<float> slopes;  // what shape.slopes shows
  RopeShape q_rope, k_rope;   // rotary 0: no turning
  at::Tensor rope_table;      // DecoderWeights::rope_table, of at least tree->max_path positions
  std::shared_ptr<const PackedTree> tree;
  QuerySet all;                         // all_queries(*tree)
  QuerySet labels;                      // label_queries(*tree)
  std::vector<std::int64_t> key_turns;  // [n] positions by which keys turn, where a prefix's do not (-1); empty: all do
  mutable std::shared_ptr<const PortablePlan> portable;  // made where it is needed, once

  const float* turns() const { return rope_table.data_ptr<float>() + rope_table.size(1); }  // those of position 0
  std::span<const std::int64_t> key_positions() const { return key_turns.empty() ? all.position : key_turns; }
};

/// Positions and causal attention. qkv [n, (heads + 2 kv_heads) * head_dim], result [n, heads * head_dim].
at::Tensor attention(const at::Tensor& qkv, const std::shared_ptr<const AttentionPlan>& plan);
/// Only the tokens of plan->tree->label_nodes ask: q [labels, heads * head_dim], kv [n, 2 kv_heads * head_dim].
at::Tensor attention_at_labels(const at::Tensor& q, const at::Tensor& kv,
                               const std::shared_ptr<const AttentionPlan>& plan);

// Outside of autograd, where texts grow (Decoder::Seen):
/// Turns the first heads * head_dim columns of `rows`, in place, by `positions`.
void turn(const at::Tensor& rows, const RopeShape& shape, const AttentionPlan& plan,
          std::span<const std::int64_t> positions);
/// Of turned queries q [queries, heads * head_dim] over turned keys and their values [tokens, 2 kv_heads * head_dim].
at::Tensor attention_over(const AttentionShape& shape, std::span<const TreeSegment> segments, const QuerySet& queries,
                          const at::Tensor& q, const at::Tensor& keys_values);

}  // namespace tailor::tune::decoder
