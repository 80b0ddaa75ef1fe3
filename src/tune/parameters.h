#pragma once
/// The numbers that a method trains, in one flat buffer with one flat gradient, so that the optimiser, clipping and
/// checkpoints are single passes. A model adds its tensors, calls flatten() once, and then uses the views.

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace tailor::tune {

/// How the optimiser treats one tensor.
struct ParameterOptions {
  bool decay = true;        // weight decay applies (not to biases and norms)
  bool head = false;        // takes settings.head_learning_rate instead of settings.learning_rate
  double rate_scale = 1.0;  // multiplies the learning rate (LoRA+ and the like)
};

struct Parameter {
  std::string name;  // GGUF name ("blk.0.attn_q.weight"), "head.weight", or "blk.0.attn_q.lora_a"
  at::Tensor value;  // f32 leaf that requires a gradient; after flatten() a view of the flat buffer
  at::Tensor grad;   // same shape, view of the flat gradient; also set as value.grad(), so autograd adds in place
  ParameterOptions options;
  std::int64_t offset = 0;  // of the first element in the flat buffers
};

/// Not copyable in meaning: at::Tensor handles share storage. Threads: one thread changes it at a time.
class ParameterSet {
 public:
  /// Before flatten() only. `initial` is copied by flatten(); tensors added one after another lie next to one another,
  /// in the order of adding and without gaps. Returns the index. A name that is already there is kInternal (throws).
  std::size_t add(std::string name, const at::Tensor& initial, ParameterOptions options = {});

  /// Moves all tensors into flat buffers of the device and makes them leaves of autograd. Call once.
  void flatten(const at::Device& device = at::kCPU);

  std::size_t size() const { return parameters_.size(); }
  const Parameter& operator[](std::size_t i) const { return parameters_[i]; }
  const Parameter& at(std::string_view name) const;  // throws Exception{kNotFound}
  bool contains(std::string_view name) const;
  auto begin() const { return parameters_.begin(); }
  auto end() const { return parameters_.end(); }

  std::int64_t element_count() const { return count_; }
  at::Tensor flat_values() const { return values_; }  // [element_count], f32; writing it changes the parameters
  at::Tensor flat_grad() const { return grads_; }     // [element_count], f32
  void zero_grad();

 private:
  std::vector<Parameter> parameters_;
  at::Tensor values_, grads_;
  std::int64_t count_ = 0;
};

}  // namespace tailor::tune
