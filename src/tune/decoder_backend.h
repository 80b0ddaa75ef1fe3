#pragma once
/// Inside of decoder_functions.cpp: what a formulation (kernels.h) of a decoder's steps has to give.

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "tune/decoder_functions.h"
#include "tune/decoder_loss.h"

namespace tailor::tune::decoder {

enum class Input : std::uint8_t { kPlain, kNorm, kActivation };

/// y = linear(input(x)).
struct LinearCall {
  LinearCall() = default;
  LinearCall(Input kind, const LinearSpec& linear) : input(kind), spec(linear) {}
  Input input = Input::kPlain;
  NormSpec norm;
  Activation activation = Activation::kSwiglu;
  LinearSpec spec;
};

/// Which random numbers (core/rng.h) drop the inputs of a layer's adapters.
std::uint64_t dropout_stream(const LinearSpec& spec);

/// The norm of `heads` heads from `column` on.
struct HeadNorm {
  Norm norm;
  std::int64_t column = 0, heads = 0;
};

/// Shapes as decoder_functions.h and decoder_loss.h say; `likeliest` of losses() has its size.
class DecoderBackend {
 public:
  virtual ~DecoderBackend() = default;
  virtual at::Tensor linear(const at::Tensor& x, const std::optional<at::Tensor>& residual,
                            const LinearCall& call) const = 0;
  virtual at::Tensor norm(const at::Tensor& x, const NormSpec& spec) const = 0;
  virtual at::Tensor activated(const at::Tensor& x, Activation activation) const = 0;
  virtual at::Tensor head_norms(const at::Tensor& qkv, const std::vector<HeadNorm>& norms, double eps,
                                std::int64_t dim) const = 0;
  virtual at::Tensor table_rows(const Slot& table, std::span<const std::int64_t> ids) const = 0;
  /// `kv` undefined: both are in q, and every token asks.
  virtual at::Tensor attention(const at::Tensor& q, const at::Tensor& kv,
                               const std::shared_ptr<const AttentionPlan>& plan) const = 0;
  virtual void turn(const at::Tensor& rows, const RopeShape& shape, const AttentionPlan& plan,
                    std::span<const std::int64_t> positions) const = 0;
  virtual at::Tensor attention_over(const AttentionShape& shape, std::span<const TreeSegment> segments,
                                    const QuerySet& queries, const at::Tensor& q,
                                    const at::Tensor& keys_values) const = 0;
  virtual at::Tensor logits(const LossHead& head, const at::Tensor& hidden) const = 0;
  virtual std::vector<float> losses(const LossHead& head, const at::Tensor& hidden, const PackedTree& tree,
                                    std::span<const float> target_weights, at::Tensor* dhidden,
                                    std::vector<std::uint8_t>* likeliest) const = 0;
};

at::Tensor cpu_logits(const LossHead& head, const at::Tensor& hidden);  // decoder_loss_cpu.cpp
std::vector<float> cpu_losses(const LossHead& head, const at::Tensor& hidden, const PackedTree& tree,
                              std::span<const float> target_weights, at::Tensor* dhidden,
                              std::vector<std::uint8_t>* likeliest);

const DecoderBackend& cpu_backend();
const DecoderBackend& portable_backend();
const DecoderBackend& backend_of(const at::Tensor& x);

}  // namespace tailor::tune::decoder
