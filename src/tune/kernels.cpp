#include "tune/kernels.h"

#include <ATen/Context.h>
#include <ATen/detail/CUDAHooksInterface.h>

namespace tailor::tune {
namespace {

thread_local Kernels on_the_processor = Kernels::kNative;

}  // namespace

bool native(const at::Tensor& x) {
  return x.device().is_cpu() && on_the_processor == Kernels::kNative;
}

KernelsGuard::KernelsGuard(Kernels kernels) : before_(on_the_processor) {
  on_the_processor = kernels;
}

KernelsGuard::~KernelsGuard() {
  on_the_processor = before_;
}

Result<at::Device> open_device(Device device) {
  if (device == Device::kCpu) return at::Device(at::kCPU);
  if (!at::globalContext().hasCUDA()) {
    return Error{
        ErrorCode::kUnavailable,
        "device cuda: this tailor-tune sees none (it is built without CUDA's half of libtorch, or there is no CUDA "
        "device with a driver that libtorch can use)",
        "build with `scripts/setup.sh --cuda` and -DTAILOR_TORCH_CUDA=ON (docs/BUILD.md), look at nvidia-smi, or take "
        "device cpu"};
  }
  return at::Device(at::kCUDA, 0);
}

}  // namespace tailor::tune
