#include "tune/decoder_adapters.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include "tune/bottleneck.h"

namespace tailor::tune::decoder {

void DecoderAdapters::add_scales(const DecoderConfig& model, ParameterSet& parameters) {
  layers_.resize(static_cast<std::size_t>(model.layers));
  for (std::int64_t l = 0; l < model.layers; ++l) {
    Layer& layer = layers_[static_cast<std::size_t>(l)];
    const auto name = [l](const char* what) { return fmt::format("blk.{}.{}", l, what); };
    const std::int64_t kv = model.kv_width();
    for (const char* what : {"ia3_k", "ia3_v"})
      parameters.add(name(what), at::ones({kv}, at::kFloat), {.decay = false});
    parameters.add(name("ia3_ffn"), at::ones({model.ffn}, at::kFloat), {.decay = false});
    bindings_.add(layer.keys_values, {name("ia3_k"), name("ia3_v")}, {2 * kv});
    bindings_.add(layer.inner, {name("ia3_ffn")}, {model.ffn});
  }
}

void DecoderAdapters::add_bottlenecks(const DecoderConfig& model, AdapterPlace place, const AdapterSettings& settings,
                                      ParameterSet& parameters, Rng& rng) {
  layers_.resize(static_cast<std::size_t>(model.layers));
  place_ = place;
  for (std::int64_t l = 0; l < model.layers; ++l) {
    Layer& layer = layers_[static_cast<std::size_t>(l)];
    const auto add = [&](std::optional<BottleneckSpec>& spec, const char* what) {
      const auto names = add_bottleneck_parameters(spec.emplace(), fmt::format("blk.{}.{}", l, what), model.hidden,
                                                   place, settings, parameters, bindings_, rng);
      names_.insert(names_.end(), names.begin(), names.end());
    };
    if (place == AdapterPlace::kHoulsby) add(layer.after_attention, "adapter_attn");
    add(place == AdapterPlace::kParallel ? layer.beside_ffn : layer.after_ffn, "adapter_ffn");
  }
}

void DecoderAdapters::bind(const ParameterSet& parameters) {
  bindings_.bind(parameters);
}

}  // namespace tailor::tune::decoder
