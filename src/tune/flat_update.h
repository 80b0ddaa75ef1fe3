#pragma once
/// What happens to the flat buffers of parameters.h in every step, in both formulations (kernels.h).

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace tailor::tune {

/// Of elements [begin, end):  m = b1 m + (1 - b1) s g;  v = b2 v + (1 - b2) (s g)^2;
/// p = keep p - size m / (sqrt(v) correction + eps);  g = 0.
struct AdamStep {
  std::int64_t begin = 0, end = 0;
  float b1 = 0, b2 = 0, eps = 0;
  float correction = 1;  // 1 / sqrt(1 - b2^t)
  float scale = 1;       // s, of the gradient
  float keep = 1, size = 0;
};

/// Tensors are f32, one-dimensional and of one device.
class FlatUpdate {
 public:
  virtual ~FlatUpdate() = default;
  /// sqrt of the sum of squares; the same for any number of threads.
  virtual double norm(const at::Tensor& x) const = 0;
  virtual void adam(at::Tensor p, at::Tensor g, at::Tensor m, at::Tensor v, const AdamStep& step) const = 0;
  /// average = keep average + (1 - keep) p;  with `first`: = p.
  virtual void average(at::Tensor average, const at::Tensor& p, float keep, bool first) const = 0;
  virtual void swap(at::Tensor a, at::Tensor b) const = 0;
  /// Makes the memory resident; values stay.
  virtual void touch(at::Tensor x) const = 0;
};

const FlatUpdate& flat_update_cpu();
const FlatUpdate& flat_update_portable();
/// By the device.
const FlatUpdate& flat_update(const at::Tensor& x);

}  // namespace tailor::tune
