#include "tune/flat_update.h"

#include "tune/kernels.h"

namespace tailor::tune {

const FlatUpdate& flat_update(const at::Tensor& x) {
  return native(x) ? flat_update_cpu() : flat_update_portable();
}

}  // namespace tailor::tune
