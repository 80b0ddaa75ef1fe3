#pragma once
/// Virtual tokens before every prompt of a frozen decoder, the only thing that is trained.
///
///   prompt tuning  their input vectors                     Lester et al., arXiv:2104.08691
///   P-tuning       their input vectors, made by a small    Liu et al., arXiv:2103.10385
///                  network (MLP or bidirectional LSTM)
///   prefix tuning  their keys and values in every layer    Li and Liang, arXiv:2101.00190; P-tuning v2,
///   arXiv:2110.07602
///
/// Reparameterised, what is trained is a network that makes them; it is gone when they are saved:
///
///   prompt tuning  E + LayerNorm(relu(E W0^T + b0) W1^T + b1)   Razdaibiedina et al., arXiv:2305.03937; E starts as
///   real
///                  tokens and the norm's gain at 0, so that the prompt does too
///   prefix tuning  S + tanh(E W0^T + b0) W1^T + b1              Li and Liang; S are the keys and values of the real
///                  tokens, which stay, W1 and b1 start at 0, E [n, kv width] at normal(0, 1)
///
/// The networks' matrices and biases take a tenth of the learning rate.
///
/// In the rows of a batch they stand as tokens vocabulary + 0 … vocabulary + n-1. Keys are kept as the cache of a
/// server keeps them: not rotated for a position.

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "core/result.h"
#include "tune/decoder_weights.h"
#include "tune/parameters.h"
#include "tune/settings.h"

namespace tailor::tune::decoder {

class SoftPrompt {
 public:
  /// What the virtual tokens start as: the vectors of real tokens, or their keys and values ([n, 2 kv width] a layer).
  struct Start {
    at::Tensor embeddings;
    std::vector<at::Tensor> keys_values;
  };

  /// Adds its parameters; use after flatten() and bind().
  SoftPrompt(const DecoderConfig& model, SoftPromptKind kind, const SoftPromptSettings& settings, std::uint64_t seed,
             Start start, ParameterSet& parameters);
  void bind(const ParameterSet& parameters) { parameters_ = &parameters; }

  std::int64_t length() const { return length_; }
  bool in_every_layer() const { return kind_ == SoftPromptKind::kPrefix; }
  /// [n, hidden], with the graph that leads to the parameters.
  at::Tensor embeddings() const;
  /// [n, 2 kv width] of one layer: keys, then values.
  at::Tensor keys_values(std::int64_t layer) const;

  /// core/soft_prompt_file.h, and the same in PEFT's layout (adapter_config.json, adapter_model.safetensors). Names.
  Result<std::vector<std::string>> save(const std::filesystem::path& dir, const std::string& base_name) const;

 private:
  at::Tensor at(const std::string& name) const { return parameters_->at(name).value; }
  at::Tensor linear(const at::Tensor& x, const std::string& name) const;

  const DecoderConfig model_;
  const SoftPromptKind kind_;
  const SoftPromptSettings settings_;
  const std::int64_t length_, kv_width_;
  std::vector<at::Tensor> fixed_start_;  // S, by layer
  const ParameterSet* parameters_ = nullptr;
};

}  // namespace tailor::tune::decoder
