#include <ATen/ATen.h>

#include "tune/flat_update.h"

namespace tailor::tune {
namespace {

class PortableUpdate final : public FlatUpdate {
 public:
  double norm(const at::Tensor& x) const override {
    return at::linalg_vector_norm(x, 2, at::OptionalIntArrayRef(), false, at::kDouble).item<double>();
  }

  void adam(at::Tensor p, at::Tensor g, at::Tensor m, at::Tensor v, const AdamStep& s) const override {
    const auto part = [&](const at::Tensor& t) { return t.narrow(0, s.begin, s.end - s.begin); };
    at::Tensor gradient = part(g) * s.scale;
    part(m).mul_(s.b1).add_(gradient, 1 - s.b1);
    part(v).mul_(s.b2).addcmul_(gradient, gradient, 1 - s.b2);
    part(p).mul_(s.keep).addcdiv_(part(m), at::sqrt(part(v)).mul_(s.correction).add_(s.eps), -s.size);
    part(g).zero_();
  }

  void average(at::Tensor average, const at::Tensor& p, float keep, bool first) const override {
    if (first)
      average.copy_(p);
    else
      average.mul_(keep).add_(p, 1 - keep);
  }

  void swap(at::Tensor a, at::Tensor b) const override {
    const at::Tensor before = a.clone();
    a.copy_(b);
    b.copy_(before);
  }

  void touch(at::Tensor x) const override { x.add_(0); }
};

}  // namespace

const FlatUpdate& flat_update_portable() {
  static const PortableUpdate kUpdate;
  return kUpdate;
}

}  // namespace tailor::tune
