#pragma once
/// A decoder (decoder_config.h) with what is trained of it: from a packed tree of tokens to losses and gradients.

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "tune/decoder_adapters.h"
#include "tune/decoder_functions.h"
#include "tune/decoder_lora.h"
#include "tune/decoder_loss.h"
#include "tune/decoder_weights.h"
#include "tune/packed_tree.h"
#include "tune/soft_prompt.h"

namespace tailor::tune::decoder {

/// Computes the last block only for the tokens whose logits are needed, and logits only for those.
/// Threads: one caller at a time.
class Decoder {
 public:
  /// `lora` (bound) may be null: the base alone. Both outlive the decoder.
  Decoder(DecoderWeights& weights, const LoraAdapters* lora) : weights_(weights), lora_(lora) {}
  void set_lora(const LoraAdapters* lora) { lora_ = lora; }
  void set_adapters(const DecoderAdapters* adapters) { adapters_ = adapters; }
  /// Between layers only their inputs are kept for the backward pass (checkpointed.h).
  void set_checkpointing(bool on) { checkpointing_ = on; }
  /// Tokens from the vocabulary's size on are then its virtual ones. It must outlive the decoder.
  void set_soft_prompt(const SoftPrompt* prompt) { soft_prompt_ = prompt; }

  /// Keys (turned by their positions 0 …) and values of `tokens` in every layer of the untouched model, [n, 2 kv
  /// width].
  std::vector<at::Tensor> keys_values(std::span<const std::int32_t> tokens);

  /// Where a pass begins: before `layer`, with the states of the tree's tokens [N, hidden]. Layer 0: with the tokens.
  struct Start {
    std::int64_t layer = 0;
    at::Tensor states;
  };
  /// Start before `layer`, which is not beyond the last one. No gradients, no dropout.
  Start start_at(const std::shared_ptr<const PackedTree>& tree, std::int64_t layer);

  /// Cross entropy of every target of the tree, in nats; no gradients, no dropout. `likeliest` as in losses_of().
  std::vector<float> losses(const std::shared_ptr<const PackedTree>& tree, const Start& start,
                            std::vector<std::uint8_t>* likeliest = nullptr);
  std::vector<float> losses(const std::shared_ptr<const PackedTree>& tree) { return losses(tree, Start()); }

  /// The same, and adds the gradient of sum(target_weights[t] * loss[t]) to the parameters' gradients. `dropout` null:
  /// none.
  std::vector<float> losses_and_gradients(const std::shared_ptr<const PackedTree>& tree,
                                          std::span<const float> target_weights, const DropoutKey* dropout,
                                          const Start& start, std::vector<std::uint8_t>* likeliest = nullptr);
  std::vector<float> losses_and_gradients(const std::shared_ptr<const PackedTree>& tree,
                                          std::span<const float> target_weights, const DropoutKey* dropout) {
    return losses_and_gradients(tree, target_weights, dropout, Start());
  }

  /// A tree of tokens whose keys and values are held in every layer, so that it can be gone on with.
  struct Seen {
    std::vector<TreeSegment> segments;
    std::vector<at::Tensor> keys_values;  // [room for tokens, 2 kv width] a layer, keys turned
    std::int64_t tokens = 0;
    /// Forgets all tokens but the first `left`.
    void cut(std::int64_t left);
  };
  /// Adds `more` to `seen`: its parents are numbered over the segments of both, its offsets and positions count from
  /// the root, begins, label nodes and targets within `more`. Losses of its targets. No gradients, no dropout.
  std::vector<float> losses_after(Seen& seen, const std::shared_ptr<const PackedTree>& more);
  /// Appends `tokens` (at least one) to the text, one segment after another, that `seen` is; logits after the last,
  /// [vocab].
  at::Tensor next_logits(Seen& seen, std::span<const std::int32_t> tokens);

  /// Logits after every label node, [label_nodes, vocab]. Large: 4 bytes times the vocabulary a node.
  at::Tensor logits(const std::shared_ptr<const PackedTree>& tree);

 private:
  struct Pass;
  Pass pass_of(const std::shared_ptr<const PackedTree>& tree, const DropoutKey* dropout);
  at::Tensor through(const Pass& pass, std::int64_t layer, at::Tensor x, std::vector<at::Tensor>* seen);
  bool trains(const Pass& pass, std::int64_t layer) const;
  /// `seen` gets every layer's keys and values, where asked.
  at::Tensor hidden_at_labels(const std::shared_ptr<const PackedTree>& tree, const DropoutKey* dropout,
                              const Start& start, std::vector<at::Tensor>* seen = nullptr);
  at::Tensor hidden_after(Seen& seen, const std::shared_ptr<const PackedTree>& more);  // at label nodes
  at::Tensor embedded(const Pass& pass);
  at::Tensor attended(const Pass& pass, std::int64_t layer, at::Tensor& x, std::vector<at::Tensor>* seen);
  at::Tensor fed_forward(const Pass& pass, std::int64_t layer, const at::Tensor& x, const at::Tensor& stream);
  /// Keys and values of `qkv` from `column` on, and queries before it where it has them, as attention wants them.
  at::Tensor shaped(const Pass& pass, std::int64_t layer, at::Tensor qkv, std::int64_t column) const;
  at::Tensor after_attention(const Pass& pass, std::int64_t layer, const at::Tensor& heads, const at::Tensor& x);
  AttentionShape attention_shape(bool local, const std::vector<float>& slopes) const;
  std::shared_ptr<const AttentionPlan> plan(const Pass& pass, bool local);
  LinearSpec spec(std::int64_t layer, LinearGroup group, const DropoutKey* dropout) const;
  NormSpec norm_spec(const Norm& norm) const { return {norm, weights_.config().norm, weights_.config().eps}; }
  LossHead head() const { return {weights_, norm_spec(weights_.final_norm())}; }

  DecoderWeights& weights_;
  const LoraAdapters* lora_;
  const DecoderAdapters* adapters_ = nullptr;
  const SoftPrompt* soft_prompt_ = nullptr;
  bool checkpointing_ = false;
};

}  // namespace tailor::tune::decoder
