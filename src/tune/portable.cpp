#include "tune/portable.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <utility>

#include "core/rng.h"

namespace tailor::tune::portable {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;
using Weight = std::function<at::Tensor()>;

struct KeptWeight : torch::CustomClassHolder {
  Weight weight;
};

/// Autograd's own product would keep an unpacked copy of every weight.
class FrozenProduct : public Function<FrozenProduct> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, Weight weight) {
    const at::AutoDispatchBelowADInplaceOrView below;
    auto kept = c10::make_intrusive<KeptWeight>();
    kept->weight = std::move(weight);
    at::Tensor y = at::mm(x, kept->weight().t());
    context->saved_data["weight"] = c10::IValue::make_capsule(std::move(kept));
    return y;
  }
  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const at::AutoDispatchBelowADInplaceOrView below;
    const auto kept = c10::static_intrusive_pointer_cast<KeptWeight>(context->saved_data.at("weight").toCapsule());
    return {at::mm(grads[0], kept->weight()), at::Tensor()};
  }
};

template <typename T>
at::Tensor index_from(std::span<const T> values, const at::Device& device) {
  at::Tensor index = at::empty({static_cast<std::int64_t>(values.size())}, at::kLong);
  std::copy(values.begin(), values.end(), index.data_ptr<std::int64_t>());
  return index.to(device);
}

std::int64_t bits(std::uint64_t x) {
  return static_cast<std::int64_t>(x);
}

/// x >> n of unsigned numbers of 64 bits; a signed shift fills in the sign.
at::Tensor shifted(const at::Tensor& x, int n) {
  return at::bitwise_and(at::bitwise_right_shift(x, n), bits(~std::uint64_t{0} >> n));
}

/// SplitMix64's finaliser, as Rng::mix. Products of int64 keep the lower 64 bits.
at::Tensor mixed(at::Tensor z) {
  z = at::bitwise_xor(z, shifted(z, 30)) * bits(0xBF58476D1CE4E5B9ULL);
  z = at::bitwise_xor(z, shifted(z, 27)) * bits(0x94D049BB133111EBULL);
  return at::bitwise_xor(z, shifted(z, 31));
}

}  // namespace

at::Tensor leaf(const at::Tensor& value, const at::Tensor& grad) {
  if (!grad.defined()) return value.defined() ? value.detach() : value;
  at::Tensor leaf = value.detach().requires_grad_();
  leaf.mutable_grad() = grad;
  return leaf;
}

at::Tensor frozen_product(const at::Tensor& x, Weight weight) {
  return FrozenProduct::apply(x, std::move(weight));
}

at::Tensor index_of(std::span<const std::int64_t> values, const at::Device& device) {
  return index_from(values, device);
}
at::Tensor index_of(std::span<const std::int32_t> values, const at::Device& device) {
  return index_from(values, device);
}

at::Tensor dropout_factors(const DropoutSite& site, std::int64_t n, const at::Device& device) {
  constexpr std::int64_t kLow = 0xFFFFFFFF;
  const auto threshold = static_cast<std::int64_t>(std::min(site.probability * 4294967296.0, 4294967295.0));
  const std::int64_t seed = bits((site.seed ^ (site.seed >> 32)) & 0xFFFFFFFFULL);
  at::Tensor h = at::arange(n, at::TensorOptions().dtype(at::kLong).device(device));
  h = at::bitwise_xor(at::bitwise_and(h, kLow), seed);
  const auto step = [&](const at::Tensor& x, int shift, std::int64_t factor) {
    return at::bitwise_and(at::bitwise_xor(x, at::bitwise_right_shift(x, shift)) * factor, kLow);
  };
  h = step(h, 16, 0x7feb352d);
  h = step(h, 15, 0x846ca68b);
  h = at::bitwise_xor(h, at::bitwise_right_shift(h, 16));
  return h.ge(threshold).to(at::kFloat) * static_cast<float>(1.0 / (1.0 - site.probability));
}

at::Tensor counted_factors(std::uint64_t seed, std::uint64_t stream, std::uint64_t threshold, float scale,
                           std::int64_t n, const at::Device& device) {
  constexpr std::uint64_t kGolden = 0x9E3779B97F4A7C15ULL;
  const std::uint64_t key = Rng::mix(seed + kGolden * (stream + 1));
  const at::Tensor counter = at::arange(1, (n + 3) / 4 + 1, at::TensorOptions().dtype(at::kLong).device(device));
  const at::Tensor z = mixed(counter * bits(kGolden) + bits(key));
  std::vector<at::Tensor> parts;
  for (int part = 0; part < 4; ++part) parts.push_back(at::bitwise_and(shifted(z, 16 * part), 0xFFFF));
  return at::stack(parts, 1).flatten().narrow(0, 0, n).ge(bits(threshold)).to(at::kFloat) * scale;
}

}  // namespace tailor::tune::portable
