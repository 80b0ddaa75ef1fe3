#include "core/modern_bert.h"

#include <fmt/format.h>

#include <vector>

namespace tailor {
namespace {

constexpr const char* kGlobal = "full_attention";
constexpr const char* kLocal = "sliding_attention";

Error refused(std::string what) {
  return {ErrorCode::kInvalidArgument, std::move(what), ""};
}

std::string shown(const Json& value) {
  return dump_json(value).substr(0, 40);
}

Result<std::int64_t> whole(const Json& config, const char* key, std::int64_t least, std::int64_t otherwise) {
  const auto it = config.find(key);
  if (it == config.end() || it->is_null()) return otherwise;
  if (!it->is_number_integer() || it->get<std::int64_t>() < least || it->get<std::int64_t>() > 1'000'000)
    return refused(fmt::format("'{}' is {}, expected a whole number from {} to 1000000", key, shown(*it), least));
  return it->get<std::int64_t>();
}

/// n where layers 0, n, 2 n, … are global and the others local; 0: there is none. All global: 1.
std::int64_t period_of(const std::vector<bool>& global) {
  const auto layers = static_cast<std::int64_t>(global.size());
  for (std::int64_t n = 1; n <= layers; ++n) {
    bool fits = true;
    for (std::int64_t i = 0; i < layers && fits; ++i) fits = global[static_cast<std::size_t>(i)] == (i % n == 0);
    if (fits) return n;
  }
  return 0;
}

Result<std::int64_t> read_period(const Json& config, std::int64_t layers) {
  const auto types = config.find("layer_types");
  if (types == config.end() || types->is_null())
    return whole(config, "global_attn_every_n_layers", 1, ModernBertLayers().global_every);
  std::vector<bool> global;
  for (const Json& type : *types) {
    if (type != kGlobal && type != kLocal)
      return refused(fmt::format("layer_types holds {}, expected '{}' or '{}'", shown(type), kGlobal, kLocal));
    global.push_back(type == kGlobal);
  }
  if (static_cast<std::int64_t>(global.size()) != layers)
    return refused(fmt::format("layer_types names {} layers, the model has {}", global.size(), layers));
  const std::int64_t n = period_of(global);
  if (n == 0) return refused("layer_types does not repeat 'one layer sees the whole text, n - 1 see a window'");
  return n;
}

Result<double> read_base(const Json& config, const char* kind, const char* old_key, double otherwise) {
  Json value = config.value(old_key, Json());
  const Json all = config.value("rope_parameters", Json());
  if (const auto own = all.is_object() ? all.find(kind) : all.end(); own != all.end() && own->is_object()) {
    if (const Json type = own->value("rope_type", Json("default")); type != "default")
      return refused(fmt::format("rope_type is {}, expected 'default'", shown(type)));
    if (own->contains("rope_theta")) value = (*own)["rope_theta"];
  }
  if (value.is_null()) return otherwise;
  if (!value.is_number() || value.get<double>() < 1 || value.get<double>() > 1e12)
    return refused(
        fmt::format("the base of {}'s rotary positions is {}, expected a number from 1 on", kind, shown(value)));
  return value.get<double>();
}

}  // namespace

Result<ModernBertLayers> read_modern_bert_layers(const Json& config, std::int64_t layers) {
  for (const char* key : {"norm_bias", "attention_bias", "mlp_bias"}) {
    if (config.value(key, Json(false)) != false)
      return refused(fmt::format("{} is true; llama.cpp knows ModernBERT without biases", key));
  }
  if (const Json name = config.value("hidden_activation", Json("gelu")); name != "gelu")
    return refused(fmt::format("hidden_activation is {}, expected 'gelu'", shown(name)));
  if (!config.value("rope_scaling", Json()).is_null())
    return refused("rope_scaling is set, expected rotary positions as they are");
  ModernBertLayers out;
  TAILOR_TRY(out.window, whole(config, "local_attention", 2, out.window));
  TAILOR_TRY(out.global_every, read_period(config, layers));
  TAILOR_TRY(out.global_base, read_base(config, kGlobal, "global_rope_theta", out.global_base));
  TAILOR_TRY(out.local_base, read_base(config, kLocal, "local_rope_theta", out.local_base));
  return out;
}

void write_modern_bert_layers(const ModernBertLayers& from, std::int64_t layers, Json& config) {
  config["hidden_activation"] = "gelu";
  config["local_attention"] = from.window;
  config["global_attn_every_n_layers"] = from.global_every;
  config["global_rope_theta"] = from.global_base;
  config["local_rope_theta"] = from.local_base;
  Json types = Json::array();
  for (std::int64_t i = 0; i < layers; ++i) types.push_back(from.is_global(i) ? kGlobal : kLocal);
  config["layer_types"] = std::move(types);
  config["rope_parameters"] = {{kGlobal, {{"rope_type", "default"}, {"rope_theta", from.global_base}}},
                               {kLocal, {{"rope_type", "default"}, {"rope_theta", from.local_base}}}};
}

}  // namespace tailor
