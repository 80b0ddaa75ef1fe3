#pragma once
/// Inside of encoder_functions.cpp: what a formulation (kernels.h) of an encoder's steps has to give.

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "tune/encoder_functions.h"

namespace tailor::tune {

/// Shapes as encoder_functions.h says; `residual` may be undefined.
class EncoderBackend {
 public:
  virtual ~EncoderBackend() = default;
  virtual at::Tensor embed(const EmbeddingSpec& spec, const PackedRows& rows) const = 0;
  virtual at::Tensor linear(const at::Tensor& x, const LinearSpec& spec, std::uint64_t dropout_seed) const = 0;
  virtual at::Tensor attention(const at::Tensor& qkv, const PackedRows& rows, std::int64_t heads,
                               const AttentionSpec& spec) const = 0;
  virtual at::Tensor gated_gelu(const at::Tensor& u) const = 0;
  virtual at::Tensor gelu(const at::Tensor& u, const Slot& bias) const = 0;
  virtual at::Tensor relu(const at::Tensor& u, const Slot& bias) const = 0;
  virtual at::Tensor scale_columns(const at::Tensor& x, const Slot& scale, std::int64_t column) const = 0;
  virtual at::Tensor add_norm(at::Tensor h, const at::Tensor& residual, const NormSpec& spec,
                              const DropoutSite& site) const = 0;
  virtual at::Tensor mean_pool(const at::Tensor& x, const PackedRows& rows) const = 0;
  virtual at::Tensor dropout(const at::Tensor& x, const DropoutSite& site) const = 0;
};

const EncoderBackend& encoder_cpu_backend();
const EncoderBackend& encoder_portable_backend();

}  // namespace tailor::tune
