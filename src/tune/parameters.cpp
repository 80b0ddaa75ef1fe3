#include "tune/parameters.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <fmt/format.h>

#include "core/result.h"

namespace tailor::tune {

std::size_t ParameterSet::add(std::string name, const at::Tensor& initial, ParameterOptions options) {
  if (values_.defined())
    throw Exception({ErrorCode::kInternal, "parameter " + name + " was added after flatten()", ""});
  if (contains(name)) throw Exception({ErrorCode::kInternal, "parameter " + name + " was added twice", ""});
  if (initial.numel() == 0) throw Exception({ErrorCode::kInternal, "parameter " + name + " is empty", ""});
  parameters_.push_back({std::move(name), initial, {}, options, count_});
  count_ += initial.numel();
  return parameters_.size() - 1;
}

void ParameterSet::flatten(const at::Device& device) {
  const auto options = at::TensorOptions().dtype(at::kFloat).device(device);
  values_ = at::empty({count_}, options);
  grads_ = at::zeros({count_}, options);
  for (Parameter& p : parameters_) {
    const auto shape = p.value.sizes().vec();
    const at::Tensor initial = p.value;
    p.value = values_.narrow(0, p.offset, initial.numel()).view(shape).detach();
    p.value.copy_(initial.detach());
    p.grad = grads_.narrow(0, p.offset, initial.numel()).view(shape);
    p.value.requires_grad_();
    p.value.mutable_grad() = p.grad;
  }
}

const Parameter& ParameterSet::at(std::string_view name) const {
  for (const Parameter& p : parameters_) {
    if (p.name == name) return p;
  }
  throw Exception({ErrorCode::kNotFound, fmt::format("there is no trained parameter '{}'", name), ""});
}

bool ParameterSet::contains(std::string_view name) const {
  for (const Parameter& p : parameters_) {
    if (p.name == name) return true;
  }
  return false;
}

void ParameterSet::zero_grad() {
  grads_.zero_();
}

}  // namespace tailor::tune
