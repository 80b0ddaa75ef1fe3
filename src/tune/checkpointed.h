#pragma once
/// Activation checkpointing: of a layer only its input is kept, and the layer is computed again when the backward pass
/// comes to it (Chen et al., Training Deep Nets with Sublinear Memory Cost, arXiv:1604.06174).

#include <ATen/core/Tensor.h>

#include <functional>

namespace tailor::tune {

/// layer(x), [n, width] each. `layer` is called a second time in the backward pass, where it has to compute the same
/// and what it refers to has to be alive; only then do gradients of its parameters arise. To be called where the layer
/// trains something or x needs a gradient.
at::Tensor checkpointed(const at::Tensor& x, std::function<at::Tensor(const at::Tensor&)> layer);

}  // namespace tailor::tune
