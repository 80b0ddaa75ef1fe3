#pragma once
/// What the portable formulations (kernels.h) of encoder and decoder share.

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "tune/encoder_kernels.h"
#include "tune/slot.h"

namespace tailor::tune::portable {

/// A leaf whose gradient autograd adds straight to `grad`; where that is undefined, the value alone.
at::Tensor leaf(const at::Tensor& value, const at::Tensor& grad);
inline at::Tensor leaf(const Slot& slot) {
  return leaf(slot.value, slot.grad);
}

/// x W^T with a frozen W [out, in], f32, which `weight` unpacks when it is needed: in the forward and again in the
/// backward pass. What it refers to outlives the backward pass.
at::Tensor frozen_product(const at::Tensor& x, std::function<at::Tensor()> weight);

/// int64 [n] on the device.
at::Tensor index_of(std::span<const std::int64_t> values, const at::Device& device);
at::Tensor index_of(std::span<const std::int32_t> values, const at::Device& device);

/// The factors, 0 or 1 / (1 - p), with which apply_dropout() (encoder_kernels.h) multiplies the first n elements, [n].
at::Tensor dropout_factors(const DropoutSite& site, std::int64_t n, const at::Device& device);
/// The same of a decoder's adapters: element i is kept where 16 bits of core/rng.h's counter i / 4 are at least
/// `threshold`.
at::Tensor counted_factors(std::uint64_t seed, std::uint64_t stream, std::uint64_t threshold, float scale,
                           std::int64_t n, const at::Device& device);

}  // namespace tailor::tune::portable
