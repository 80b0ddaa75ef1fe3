#include "tune/checkpointed.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>

#include <utility>

namespace tailor::tune {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;
using Layer = std::function<at::Tensor(const at::Tensor&)>;

struct Kept : torch::CustomClassHolder {
  Layer layer;
  at::Tensor x;
};

class Checkpointed : public Function<Checkpointed> {
 public:
  /// `anchor` makes autograd come back where x needs no gradient.
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const at::Tensor& anchor, Layer layer) {
    (void)anchor;
    auto kept = c10::make_intrusive<Kept>();
    kept->layer = std::move(layer);
    kept->x = x.detach();
    at::Tensor y = kept->layer(kept->x);  // gradients are off here
    context->saved_data["kept"] = c10::IValue::make_capsule(std::move(kept));
    return y;
  }

  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const bool need_x = context->needs_input_grad(0);
    const auto kept = c10::static_intrusive_pointer_cast<Kept>(context->saved_data.at("kept").toCapsule());
    context->saved_data.clear();
    at::Tensor x = std::move(kept->x);
    x.requires_grad_(need_x);
    {
      const at::AutoGradMode with_gradients(true);
      const at::Tensor y = kept->layer(x);
      torch::autograd::backward({y}, {grads[0]});
    }
    return {need_x ? x.grad() : at::Tensor(), at::Tensor(), at::Tensor()};
  }
};

}  // namespace

at::Tensor checkpointed(const at::Tensor& x, Layer layer) {
  const at::Tensor anchor = at::empty({0}, x.options()).requires_grad_();
  return Checkpointed::apply(x, anchor, std::move(layer));
}

}  // namespace tailor::tune
