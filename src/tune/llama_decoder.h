#pragma once
/// A decoder of the llama family with adapters on a frozen base: from a packed tree of tokens to losses and gradients.

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "tune/llama_batch.h"
#include "tune/llama_functions.h"
#include "tune/llama_lora.h"
#include "tune/llama_weights.h"
#include "tune/soft_prompt.h"

namespace tailor::tune::llama {

/// Computes the last block only for the tokens whose logits are needed, and logits only for those.
/// Threads: one caller at a time.
class LlamaDecoder {
 public:
  /// `adapters` (bound) may be null: the base alone. Both outlive the decoder.
  LlamaDecoder(LlamaWeights& weights, const LoraAdapters* adapters) : weights_(weights), adapters_(adapters) {}
  void set_adapters(const LoraAdapters* adapters) { adapters_ = adapters; }
  /// Tokens from the vocabulary's size on are then its virtual ones. It must outlive the decoder.
  void set_soft_prompt(const SoftPrompt* prompt) { soft_prompt_ = prompt; }

  /// Keys (turned by their positions 0 …) and values of `tokens` in every layer of the untouched model, [n, 2 kv
  /// width].
  std::vector<at::Tensor> keys_values(std::span<const std::int32_t> tokens);

  /// Cross entropy of every target of the tree, in nats; no gradients, no dropout.
  std::vector<float> losses(const std::shared_ptr<const PackedTree>& tree);

  /// The same, and adds the gradient of sum(target_weights[t] * loss[t]) to the adapters' gradients. `dropout` null:
  /// none.
  std::vector<float> losses_and_gradients(const std::shared_ptr<const PackedTree>& tree,
                                          std::span<const float> target_weights, const DropoutKey* dropout);

  /// Logits after every label node, [label_nodes, vocab]. Large: 4 bytes times the vocabulary a node.
  at::Tensor logits(const std::shared_ptr<const PackedTree>& tree);

 private:
  /// `seen` gets every layer's keys and values, where asked.
  at::Tensor hidden_at_labels(const std::shared_ptr<const PackedTree>& tree, const DropoutKey* dropout,
                              std::vector<at::Tensor>* seen = nullptr);
  LinearSpec spec(std::int64_t layer, LinearGroup group, const DropoutKey* dropout) const;
  /// Final norm, output layer and cross entropy in slices of label nodes; the gradient of `hidden` where asked.
  std::vector<float> loss_head(const at::Tensor& hidden, const PackedTree& tree, std::span<const float> target_weights,
                               at::Tensor* dhidden);
  at::Tensor output(const at::Tensor& normed);
  at::Tensor output_backward(const at::Tensor& dlogits);

  LlamaWeights& weights_;
  const LoraAdapters* adapters_;
  const SoftPrompt* soft_prompt_ = nullptr;
};

}  // namespace tailor::tune::llama
