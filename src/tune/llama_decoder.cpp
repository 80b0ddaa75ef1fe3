#include "tune/llama_decoder.h"

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <cmath>

namespace tailor::tune::llama {
namespace {

constexpr std::int64_t kLabelSlice = 64;  // label nodes whose logits are in memory at once

}  // namespace

LinearSpec LlamaDecoder::spec(std::int64_t layer, LinearGroup group, const DropoutKey* dropout) const {
  LinearSpec s;
  s.weights = &weights_;
  s.layer = layer;
  s.group = group;
  if (adapters_ != nullptr) s.lora = adapters_->group(layer, group);
  s.training = dropout != nullptr;
  if (dropout != nullptr) s.dropout = *dropout;
  return s;
}

namespace {

/// Virtual tokens of a batch: where they stand, and which they are.
struct SoftRows {
  at::Tensor nodes, ids;  // int64 [k]; undefined: none

  SoftRows() = default;
  SoftRows(const PackedTree& tree, std::int64_t vocabulary) {
    std::vector<std::int64_t> at_node, which;
    for (std::size_t i = 0; i < tree.tokens.size(); ++i) {
      if (tree.tokens[i] < vocabulary) continue;
      at_node.push_back(static_cast<std::int64_t>(i));
      which.push_back(tree.tokens[i] - vocabulary);
    }
    if (at_node.empty()) return;
    nodes = at::tensor(at_node, at::kLong);
    ids = at::tensor(which, at::kLong);
  }
  bool empty() const { return !nodes.defined(); }
};

/// Rows `soft.nodes` of x get `values`[soft.ids] from `column` on.
at::Tensor with_rows(const at::Tensor& x, const SoftRows& soft, const at::Tensor& values, std::int64_t column) {
  at::Tensor rows = values.index_select(0, soft.ids);
  if (column > 0) rows = at::cat({x.narrow(1, 0, column).index_select(0, soft.nodes), rows}, 1);
  return x.index_copy(0, soft.nodes, rows);
}

}  // namespace

std::vector<at::Tensor> LlamaDecoder::keys_values(std::span<const std::int32_t> tokens) {
  const c10::NoGradGuard no_grad;
  // The last token of a row is only ever an answer: one more is put behind it.
  std::vector<std::int32_t> longer(tokens.begin(), tokens.end());
  longer.push_back(tokens.back());
  const SequenceView view{longer, {}};
  const auto tree = std::make_shared<PackedTree>(pack_tree({&view, 1}, Sharing::kNone));
  std::vector<at::Tensor> seen;
  hidden_at_labels(tree, nullptr, &seen);
  return seen;
}

at::Tensor LlamaDecoder::hidden_at_labels(const std::shared_ptr<const PackedTree>& tree, const DropoutKey* dropout,
                                          std::vector<at::Tensor>* seen) {
  const LlamaConfig& c = weights_.config();
  auto plan = std::make_shared<AttentionPlan>();
  plan->shape = {c.heads, c.kv_heads, c.head_dim, static_cast<float>(1.0 / std::sqrt(static_cast<double>(c.head_dim)))};
  plan->rotary = c.rotary;
  plan->rope_table = weights_.rope_table(tree->max_path);
  plan->tree = tree;
  plan->all = all_queries(*tree);
  plan->labels = label_queries(*tree);
  const SoftRows soft = soft_prompt_ == nullptr ? SoftRows() : SoftRows(*tree, c.vocab);
  const bool in_layers = soft_prompt_ != nullptr && soft_prompt_->in_every_layer();
  if (!soft.empty() && in_layers) {
    plan->key_turns = tree->positions;
    for (std::size_t i = 0; i < tree->tokens.size(); ++i) {
      if (tree->tokens[i] >= c.vocab) plan->key_turns[i] = 0;
    }
  }
  const std::shared_ptr<const AttentionPlan> shared = plan;
  const at::Tensor label_nodes = at::from_blob(const_cast<std::int64_t*>(tree->label_nodes.data()),
                                               {static_cast<std::int64_t>(tree->label_nodes.size())}, at::kLong);
  const std::int64_t q_width = c.heads * c.head_dim, kv_width = 2 * c.kv_heads * c.head_dim;  // keys, then values
  const bool all_asked = tree->label_nodes.size() == tree->tokens.size();

  std::vector<std::int32_t> words = tree->tokens;
  if (!soft.empty())
    std::replace_if(
        words.begin(), words.end(), [&](std::int32_t t) { return t >= c.vocab; }, 0);
  at::Tensor x = weights_.embed(words);
  if (!soft.empty() && !in_layers) x = with_rows(x, soft, soft_prompt_->embeddings(), 0);
  for (std::int64_t layer = 0; layer < c.layers; ++layer) {
    at::Tensor attended;
    if (layer + 1 < c.layers || all_asked) {
      at::Tensor qkv =
          norm_linear(x, weights_.attention_norm(layer), c.rms_eps, spec(layer, LinearGroup::kQkv, dropout));
      if (!soft.empty() && in_layers) qkv = with_rows(qkv, soft, soft_prompt_->keys_values(layer), q_width);
      if (seen != nullptr) {
        seen->push_back(qkv.narrow(1, q_width, kv_width).clone());
        float* keys = seen->back().data_ptr<float>();
        rope({c.kv_heads, c.head_dim, c.rotary}, plan->rope_table, tree->positions.data(), tree->size(), keys, kv_width,
             keys, kv_width, false);
      }
      attended = rope_attention(qkv, shared);
    } else {
      LinearSpec kv_spec = spec(layer, LinearGroup::kQkv, dropout);
      LinearSpec q_spec = kv_spec;
      kv_spec.out_begin = q_width;
      kv_spec.out_end = q_width + kv_width;
      kv_spec.lora = kv_spec.lora.slice(q_width, q_width + kv_width);
      q_spec.out_begin = 0;
      q_spec.out_end = q_width;
      q_spec.lora = q_spec.lora.slice(0, q_width);
      at::Tensor kv = norm_linear(x, weights_.attention_norm(layer), c.rms_eps, kv_spec);
      if (!soft.empty() && in_layers) kv = with_rows(kv, soft, soft_prompt_->keys_values(layer), 0);
      x = x.index_select(0, label_nodes);
      const at::Tensor q = norm_linear(x, weights_.attention_norm(layer), c.rms_eps, q_spec);
      attended = rope_attention_at_labels(q, kv, shared);
    }
    x = linear_add(attended, x, spec(layer, LinearGroup::kOutput, dropout));
    const at::Tensor gate_up =
        norm_linear(x, weights_.ffn_norm(layer), c.rms_eps, spec(layer, LinearGroup::kGateUp, dropout));
    x = swiglu_linear_add(gate_up, x, spec(layer, LinearGroup::kDown, dropout));
  }
  return x;
}

at::Tensor LlamaDecoder::output(const at::Tensor& normed) {
  const std::int64_t vocab = weights_.config().vocab;
  if (const ProductPart part{weights_.output_matrix()}; fast_gemm_suits(part.w)) {
    at::Tensor logits = at::empty({normed.size(0), vocab}, normed.options());
    frozen_product({&part, 1}, normed.data_ptr<float>(), normed.size(1), normed.size(0), nullptr, 0, 1, nullptr,
                   logits.data_ptr<float>(), vocab);
    return logits;
  }
  const std::int64_t chunk = weights_.output_chunk();
  at::Tensor logits = at::empty({normed.size(0), vocab}, normed.options());
  for (std::int64_t begin = 0; begin < vocab; begin += chunk) {
    const std::int64_t end = std::min(vocab, begin + chunk);
    at::Tensor part = logits.narrow(1, begin, end - begin);
    at::mm_out(part, normed, weights_.output_rows(begin, end).t());
  }
  return logits;
}

at::Tensor LlamaDecoder::output_backward(const at::Tensor& dlogits) {
  const std::int64_t vocab = weights_.config().vocab;
  if (const ProductPart part{weights_.output_matrix()}; fast_gemm_suits(part.w)) {
    at::Tensor d = at::empty({dlogits.size(0), weights_.config().hidden}, dlogits.options());
    frozen_product_backward({&part, 1}, dlogits.data_ptr<float>(), vocab, dlogits.size(0), nullptr, 0, nullptr,
                            d.data_ptr<float>(), d.size(1));
    return d;
  }
  const std::int64_t chunk = weights_.output_chunk();
  at::Tensor d = at::zeros({dlogits.size(0), weights_.config().hidden}, dlogits.options());
  for (std::int64_t begin = 0; begin < vocab; begin += chunk) {
    const std::int64_t end = std::min(vocab, begin + chunk);
    d.addmm_(dlogits.narrow(1, begin, end - begin), weights_.output_rows(begin, end));
  }
  return d;
}

std::vector<float> LlamaDecoder::loss_head(const at::Tensor& hidden, const PackedTree& tree,
                                           std::span<const float> target_weights, at::Tensor* dhidden) {
  const LlamaConfig& c = weights_.config();
  const at::Tensor norm = weights_.final_norm();
  std::vector<float> losses(tree.targets.size());
  if (dhidden != nullptr) *dhidden = at::empty_like(hidden);
  for (std::int64_t begin = 0; begin < hidden.size(0); begin += kLabelSlice) {
    const std::int64_t n = std::min(kLabelSlice, hidden.size(0) - begin);
    const at::Tensor x = hidden.narrow(0, begin, n);
    at::Tensor normed = at::empty_like(x);
    at::Tensor inverse_rms = at::empty({n}, x.options());
    rms_norm(x.data_ptr<float>(), norm.data_ptr<float>(), static_cast<float>(c.rms_eps), n, c.hidden,
             normed.data_ptr<float>(), inverse_rms.data_ptr<float>());
    const at::Tensor logits = output(normed);
    cross_entropy(logits.data_ptr<float>(), n, c.vocab, tree.targets, begin, target_weights.data(), losses.data(),
                  dhidden != nullptr);
    if (dhidden == nullptr) continue;
    const at::Tensor dnormed = output_backward(logits);
    rms_norm_backward(dnormed.data_ptr<float>(), x.data_ptr<float>(), norm.data_ptr<float>(),
                      inverse_rms.data_ptr<float>(), n, c.hidden, dhidden->data_ptr<float>() + begin * c.hidden,
                      nullptr);
  }
  return losses;
}

std::vector<float> LlamaDecoder::losses(const std::shared_ptr<const PackedTree>& tree) {
  if (tree->targets.empty()) return {};
  const c10::NoGradGuard no_grad;
  const std::vector<float> ones(tree->targets.size(), 1.0f);
  return loss_head(hidden_at_labels(tree, nullptr), *tree, ones, nullptr);
}

std::vector<float> LlamaDecoder::losses_and_gradients(const std::shared_ptr<const PackedTree>& tree,
                                                      std::span<const float> target_weights,
                                                      const DropoutKey* dropout) {
  if (tree->targets.empty()) return {};
  const at::Tensor hidden = hidden_at_labels(tree, dropout);
  at::Tensor dhidden;
  std::vector<float> losses = loss_head(hidden.detach(), *tree, target_weights, &dhidden);
  torch::autograd::backward({hidden}, {dhidden});
  return losses;
}

at::Tensor LlamaDecoder::logits(const std::shared_ptr<const PackedTree>& tree) {
  const c10::NoGradGuard no_grad;
  const LlamaConfig& c = weights_.config();
  const at::Tensor x = hidden_at_labels(tree, nullptr);
  at::Tensor normed = at::empty_like(x);
  rms_norm(x.data_ptr<float>(), weights_.final_norm().data_ptr<float>(), static_cast<float>(c.rms_eps), x.size(0),
           c.hidden, normed.data_ptr<float>(), nullptr);
  return output(normed);
}

}  // namespace tailor::tune::llama
