#include "tune/bottleneck.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include "core/result.h"

namespace tailor::tune {
namespace {

constexpr double kFirstStd = 0.01;  // of the first weights: close to the identity

at::Tensor normal(std::vector<std::int64_t> shape, Rng& rng) {
  at::Tensor t = at::empty(shape, at::kFloat);
  for (float *p = t.data_ptr<float>(), *end = p + t.numel(); p != end; ++p)
    *p = static_cast<float>(kFirstStd * rng.normal());
  return t;
}

}  // namespace

std::vector<std::string> add_bottleneck_parameters(BottleneckSpec& spec, const std::string& name, std::int64_t width,
                                                   AdapterPlace place, const AdapterSettings& settings,
                                                   ParameterSet& parameters, SlotBindings& bindings, Rng& rng) {
  const std::int64_t m = settings.size;
  if (m > width) {
    throw Exception({ErrorCode::kInvalidArgument,
                     fmt::format("settings.adapter.size is {}, the model is only {} wide", m, width),
                     "a bottleneck is narrower than the model"});
  }
  spec.scale = settings.scale;
  // Houlsby's own code has GELU; Pfeiffer's and the parallel one have ReLU.
  spec.activation = place == AdapterPlace::kHoulsby ? Activation::kGelu : Activation::kRelu;
  std::vector<std::string> names;
  const auto add = [&](Slot& slot, const char* rest, const at::Tensor& first, bool decay) {
    names.push_back(name + rest);
    parameters.add(names.back(), first, {.decay = decay});
    bindings.add(slot, {names.back()}, first.sizes().vec());
  };
  add(spec.down.weight, ".down.weight", normal({m, width}, rng), true);
  add(spec.down_bias, ".down.bias", at::zeros({m}, at::kFloat), false);
  add(spec.up.weight, ".up.weight", normal({width, m}, rng), true);
  add(spec.up.bias, ".up.bias", at::zeros({width}, at::kFloat), false);
  return names;
}

}  // namespace tailor::tune
