#pragma once
/// The steps of a decoder block as differentiable functions, each with a backward pass of its own that computes only
/// the gradients somebody needs and keeps only what it cannot compute again cheaply. Tensors are f32 and contiguous;
/// n tokens stand in rows. The gradients of adapters are added to LoraGroup::grad_a and grad_b directly.

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>

#include "tune/llama_batch.h"
#include "tune/llama_kernels.h"
#include "tune/llama_lora.h"
#include "tune/llama_weights.h"

namespace tailor::tune::llama {

/// A frozen group of linear layers, or its outputs [out_begin, out_end), with its adapter. Everything it points to
/// outlives the backward pass.
struct LinearSpec {
  LlamaWeights* weights = nullptr;
  std::int64_t layer = 0;
  LinearGroup group = LinearGroup::kQkv;
  std::int64_t out_begin = 0;
  std::int64_t out_end = -1;  // -1: all
  LoraGroup lora;             // empty: none
  DropoutKey dropout;         // used where lora.dropout > 0 and `training`
  bool training = true;       // false: no dropout
};

/// y = linear(x / rms(x) * norm).  x [n, in], y [n, out].
at::Tensor norm_linear(const at::Tensor& x, const at::Tensor& norm, double eps, const LinearSpec& spec);
/// y = residual + linear(x).
at::Tensor linear_add(const at::Tensor& x, const at::Tensor& residual, const LinearSpec& spec);
/// y = residual + linear(silu(gate) * up).  gate_up [n, 2 in].
at::Tensor swiglu_linear_add(const at::Tensor& gate_up, const at::Tensor& residual, const LinearSpec& spec);

/// What attention needs to know of the batch; shared by all layers and passes.
struct AttentionPlan {
  AttentionShape shape;
  std::int64_t rotary = 0;
  const float* rope_table = nullptr;  // LlamaWeights::rope_table, of at least tree->max_path positions
  std::shared_ptr<const PackedTree> tree;
  QuerySet all;                         // all_queries(*tree)
  QuerySet labels;                      // label_queries(*tree)
  std::vector<std::int64_t> key_turns;  // [n] positions by which keys turn, where a prefix's do not (0); empty: all do

  const std::int64_t* key_positions() const { return key_turns.empty() ? all.position.data() : key_turns.data(); }
};

/// Rotary embedding and causal attention. qkv [n, (heads + 2 kv_heads) * head_dim], result [n, heads * head_dim].
at::Tensor rope_attention(const at::Tensor& qkv, const std::shared_ptr<const AttentionPlan>& plan);
/// Only the tokens of plan->tree->label_nodes ask: q [labels, heads * head_dim], kv [n, 2 kv_heads * head_dim].
at::Tensor rope_attention_at_labels(const at::Tensor& q, const at::Tensor& kv,
                                    const std::shared_ptr<const AttentionPlan>& plan);

}  // namespace tailor::tune::llama
