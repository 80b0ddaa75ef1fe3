#include "tune/decoder_adapters.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

namespace tailor::tune::decoder {
namespace {

constexpr double kAdapterStd = 0.01;  // of a bottleneck's first weights: close to the identity

}  // namespace

void DecoderAdapters::add_scales(const DecoderConfig& model, ParameterSet& parameters) {
  layers_.resize(static_cast<std::size_t>(model.layers));
  for (std::int64_t l = 0; l < model.layers; ++l) {
    Layer& layer = layers_[static_cast<std::size_t>(l)];
    const auto name = [l](const char* what) { return fmt::format("blk.{}.{}", l, what); };
    const std::int64_t kv = model.kv_width();
    for (const char* what : {"ia3_k", "ia3_v"})
      parameters.add(name(what), at::ones({kv}, at::kFloat), {.decay = false});
    parameters.add(name("ia3_ffn"), at::ones({model.ffn}, at::kFloat), {.decay = false});
    bindings_.push_back({&layer.keys_values, {name("ia3_k"), name("ia3_v")}, {2 * kv}});
    bindings_.push_back({&layer.inner, {name("ia3_ffn")}, {model.ffn}});
  }
}

void DecoderAdapters::add_bottleneck_to(std::optional<BottleneckSpec>& spec, const std::string& name,
                                        std::int64_t width, AdapterPlace place, const AdapterSettings& settings,
                                        ParameterSet& parameters, Rng& rng) {
  const std::int64_t m = settings.size;
  if (m > width) {
    throw Exception({ErrorCode::kInvalidArgument,
                     fmt::format("settings.adapter.size is {}, the model is only {} wide", m, width),
                     "a bottleneck is narrower than the model"});
  }
  const auto normal = [&](std::vector<std::int64_t> shape) {
    at::Tensor t = at::empty(shape, at::kFloat);
    for (float *p = t.data_ptr<float>(), *end = p + t.numel(); p != end; ++p)
      *p = static_cast<float>(kAdapterStd * rng.normal());
    return t;
  };
  spec.emplace();
  spec->scale = settings.scale;
  // Houlsby's own code has GELU; Pfeiffer's and the parallel one have ReLU.
  spec->activation = place == AdapterPlace::kHoulsby ? tune::Activation::kGelu : tune::Activation::kRelu;
  const auto add = [&](Slot& slot, const std::string& rest, const at::Tensor& first, bool decay) {
    parameters.add(name + rest, first, {.decay = decay});
    bindings_.push_back({&slot, {name + rest}, first.sizes().vec()});
    names_.push_back(name + rest);
  };
  add(spec->down.weight, ".down.weight", normal({m, width}), true);
  add(spec->down_bias, ".down.bias", at::zeros({m}, at::kFloat), false);
  add(spec->up.weight, ".up.weight", normal({width, m}), true);
  add(spec->up.bias, ".up.bias", at::zeros({width}, at::kFloat), false);
}

void DecoderAdapters::add_bottlenecks(const DecoderConfig& model, AdapterPlace place, const AdapterSettings& settings,
                                      ParameterSet& parameters, Rng& rng) {
  layers_.resize(static_cast<std::size_t>(model.layers));
  place_ = place;
  for (std::int64_t l = 0; l < model.layers; ++l) {
    Layer& layer = layers_[static_cast<std::size_t>(l)];
    const auto add = [&](std::optional<BottleneckSpec>& spec, const char* what) {
      add_bottleneck_to(spec, fmt::format("blk.{}.{}", l, what), model.hidden, place, settings, parameters, rng);
    };
    if (place == AdapterPlace::kHoulsby) add(layer.after_attention, "adapter_attn");
    add(place == AdapterPlace::kParallel ? layer.beside_ffn : layer.after_ffn, "adapter_ffn");
  }
}

void DecoderAdapters::bind(const ParameterSet& parameters) {
  for (const Binding& binding : bindings_) {
    const std::int64_t offset = parameters.at(binding.names[0]).offset;
    std::int64_t count = 0;
    for (const std::string& name : binding.names) count += parameters.at(name).value.numel();
    binding.slot->value =
        parameters.flat_values().narrow(0, offset, count).view(binding.shape).detach().requires_grad_();
    binding.slot->grad = parameters.flat_grad().narrow(0, offset, count).view(binding.shape);
  }
}

}  // namespace tailor::tune::decoder
