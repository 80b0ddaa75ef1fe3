#pragma once
/// Which formulation computes on a tensor: our own kernels, which know the processor's memory (*_cpu.cpp), or plain
/// ATen
/// (*_portable.cpp), which works on every device. Both give the same numbers but for rounding, and tests hold the
/// portable one against the references on the processor.

#include <ATen/core/Tensor.h>

#include "core/result.h"
#include "tune/settings.h"

namespace tailor::tune {

/// Whether our own kernels serve this tensor.
bool native(const at::Tensor& x);

/// While it lives, tensors of the processor that this thread computes on take the formulation it names; as
/// at::NoGradGuard does for gradients. For jobs with "kernels": "portable", and for tests.
class KernelsGuard {
 public:
  explicit KernelsGuard(Kernels kernels);
  ~KernelsGuard();
  KernelsGuard(const KernelsGuard&) = delete;
  KernelsGuard& operator=(const KernelsGuard&) = delete;

 private:
  const Kernels before_;
};

/// The ATen device of a job; kUnavailable where this build or machine has none.
Result<at::Device> open_device(Device device);

}  // namespace tailor::tune
