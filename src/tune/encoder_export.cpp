#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/ones_like.h>
#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/bottleneck_file.h"
#include "tune/encoder.h"

namespace tailor::tune {
namespace {

constexpr std::string_view kWords = "token_embd.weight";
constexpr std::string_view kPositions = "position_embd.weight";
constexpr std::string_view kTypes = "token_types.weight";

}  // namespace

std::vector<Encoder::Adapter> Encoder::adapters(const ParameterSet& parameters) const {
  std::vector<Adapter> found;
  for (const std::string& name : options_.lora_targets) {
    Adapter adapter{name,
                    parameters.at(name + ".lora_a").value.detach().cpu(),
                    parameters.at(name + ".lora_b").value.detach().cpu(),
                    {},
                    options_.lora.scale()};
    if (const auto first = first_.find(name); first != first_.end()) {  // B A - B0 A0 is a product of twice the rank
      adapter.a = at::cat({adapter.a, first->second.first.cpu()}, 0);
      adapter.b = at::cat({adapter.b, -first->second.second.cpu()}, 1);
    }
    if (options_.lora.dora) adapter.magnitude = parameters.at(name + ".lora_magnitude").value.detach().cpu();
    found.push_back(std::move(adapter));
  }
  return found;
}

std::string_view Encoder::adapter_place() const {
  switch (options_.adapter->place) {
    case AdapterPlace::kHoulsby:
      return kPlaceHoulsby;
    case AdapterPlace::kPfeiffer:
      return kPlacePfeiffer;
    case AdapterPlace::kParallel:
      break;
  }
  return kPlaceParallel;
}

std::vector<Encoder::Named> Encoder::bottlenecks(const ParameterSet& parameters) const {
  std::vector<Named> found;
  for (const std::string& name : bottleneck_names_) found.push_back({name, parameters.at(name).value.detach().cpu()});
  return found;
}

nlohmann::ordered_json Encoder::describe(const BaseWeights& weights) const {
  return {{"architecture", weights.architecture()},
          {"layers", config_.layers},
          {"width", config_.width},
          {"labels", file_.n_labels},
          {"base_in_memory", options_.dtype == Dtype::kBf16 ? "bf16" : "f32"}};
}

/// IA3's scale of a tensor, and whether it scales columns (the input) or rows (the output, its bias too).
std::pair<at::Tensor, bool> Encoder::ia3_of(const std::string& name, const ParameterSet& parameters) const {
  if (!options_.ia3) return {};
  const auto named = [&](std::string_view module, std::string_view scale) {
    const std::size_t at = name.find(module);
    return at == std::string::npos ? at::Tensor()
                                   : parameters.at(name.substr(0, at) + std::string(scale)).value.detach().cpu();
  };
  if (name.ends_with("attn_qkv.weight")) {
    const at::Tensor k = named("attn_qkv.", "ia3_k"), v = named("attn_qkv.", "ia3_v");
    return {at::cat({at::ones_like(k), k, v}), false};
  }
  if (at::Tensor k = named("attn_k.", "ia3_k"); k.defined()) return {k, false};
  if (at::Tensor v = named("attn_v.", "ia3_v"); v.defined()) return {v, false};
  if (name.ends_with("ffn_down.weight")) return {named("ffn_down.", "ia3_ffn"), true};
  return {};
}

void Encoder::visit_merged(const BaseWeights& weights, const ParameterSet& parameters, double unused_decay,
                           bool changed_only, const std::function<void(const Named&)>& visit) const {
  const auto adapters_here = adapters(parameters);
  for (const std::string& name : weights.names()) {
    const bool here = parameters.contains(name);
    const auto adapter = std::find_if(adapters_here.begin(), adapters_here.end(),
                                      [&](const Adapter& a) { return name == a.module + ".weight"; });
    const auto [scale, columns] = ia3_of(name, parameters);
    const bool rounded_here = rounded(name, weights.stored(name).shape.size());
    if (changed_only && !here && adapter == adapters_here.end() && !scale.defined() && !rounded_here) continue;
    if (!here) {
      at::Tensor value = weights.load(name);
      if (rounded_here) value = value.to(at::kBFloat16).to(at::kFloat);
      if (adapter != adapters_here.end()) {
        value.addmm_(adapter->b, adapter->a, 1, adapter->scale);
        if (adapter->magnitude.defined())
          value.mul_((adapter->magnitude / at::linalg_vector_norm(value, 2, at::IntArrayRef{1})).unsqueeze(1));
      }
      if (scale.defined()) value.mul_(columns ? scale : value.dim() == 2 ? scale.unsqueeze(1) : scale);
      visit({name, value});
      continue;
    }
    const at::Tensor trained_value = parameters.at(name).value.detach().cpu();
    if (name == kWords || name == kPositions || name == kTypes) {
      at::Tensor whole = weights.load(name);
      whole.mul_(unused_decay);
      if (name == kWords) {
        for (std::size_t i = 0; i < used_ids_.size(); ++i) {
          whole.select(0, used_ids_[i]).copy_(trained_value.select(0, static_cast<std::int64_t>(i)));
        }
      } else {
        whole.view({-1, config_.width})
            .narrow(0, 0, trained_value.numel() / config_.width)
            .copy_(trained_value.view({-1, config_.width}));
      }
      visit({name, whole});
    } else {
      visit({name, trained_value});
    }
  }
}

}  // namespace tailor::tune
