#pragma once
/// One weight as a function of the model sees it.

#include <ATen/core/Tensor.h>

namespace tailor::tune {

/// `grad` is undefined where the weight is frozen; both are where the model has no such weight. A trained value is a
/// leaf that requires a gradient, so that autograd comes back to functions that add to `grad` themselves.
struct Slot {
  at::Tensor value;
  at::Tensor grad;
  bool defined() const { return value.defined(); }
  bool trained() const { return grad.defined(); }
};

}  // namespace tailor::tune
