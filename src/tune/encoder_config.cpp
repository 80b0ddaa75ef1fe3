#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <regex>
#include <set>

#include "tune/encoder.h"
#include "tune/hf_names.h"

namespace tailor::tune {
namespace {

constexpr std::string_view kWords = "token_embd.weight";
constexpr std::string_view kTypes = "token_types.weight";
constexpr std::string_view kModernBert = "modern-bert";

/// A window of 0, or none: every layer sees the whole text, as llama.cpp reads it.
ModernBertLayers read_modern(const BaseWeights& weights, const EncoderConfig& c) {
  const auto number = [&](std::string_view key) { return weights.number(fmt::format("{}.{}", kModernBert, key)); };
  ModernBertLayers layers;
  layers.window = static_cast<std::int64_t>(number("attention.sliding_window").value_or(0));
  if (layers.window < 1) {
    layers.global_every = 1;
  } else if (const auto n = number("attention.sliding_window_pattern")) {
    layers.global_every = static_cast<std::int64_t>(*n);
  }
  layers.global_base = number("rope.freq_base").value_or(10'000);
  layers.local_base = number("rope.freq_base_swa").value_or(10'000);
  const std::string activation = weights.text(fmt::format("{}.hidden_activation", kModernBert)).value_or("gelu");
  if (layers.global_every < 1 || layers.global_base < 1 || layers.local_base < 1 || activation != "gelu" ||
      c.width % (2 * std::max<std::int64_t>(c.heads, 1)) != 0) {
    throw Exception(
        {ErrorCode::kInvalidArgument,
         fmt::format("{}: this ModernBERT cannot be trained: global every {} layers, rotary bases {} and {}, "
                     "activation {}, width {} in {} heads",
                     weights.path().string(), layers.global_every, layers.global_base, layers.local_base, activation,
                     c.width, c.heads),
         "models with GELU and an even head width are trained"});
  }
  return layers;
}

}  // namespace

EncoderConfig EncoderConfig::read(const BaseWeights& weights) {
  const std::string& architecture = weights.architecture();
  const auto number = [&](std::string_view key) {
    return weights.need_number(fmt::format("{}.{}", architecture, key));
  };
  const auto whole = [&](std::string_view key) { return static_cast<std::int64_t>(number(key)); };
  EncoderConfig c;
  c.layers = whole("block_count");
  c.width = whole("embedding_length");
  c.heads = whole("attention.head_count");
  c.feed_forward = whole("feed_forward_length");
  c.context = whole("context_length");
  c.eps = static_cast<float>(number("attention.layer_norm_epsilon"));
  c.model_type = hf_model_type(weights);
  c.trains_types = c.model_type != "distilbert";
  if (architecture == kModernBert) c.modern = read_modern(weights, c);
  if (weights.has(kTypes) && weights.stored(kTypes).shape.size() == 2) c.token_types = weights.stored(kTypes).shape[0];
  const StoredTensor& words = weights.stored(kWords);
  if (c.layers < 1 || c.layers > 1024 || c.heads < 1 || c.width < 1 || c.width % c.heads != 0 || c.feed_forward < 1 ||
      c.context < 1 || words.shape.size() != 2 || words.shape[1] != c.width) {
    throw Exception(
        {ErrorCode::kCorruptData,
         fmt::format(
             "{}: the encoder's shape makes no sense: {} layers, width {}, {} heads, feed-forward {}, context {}",
             weights.path().string(), c.layers, c.width, c.heads, c.feed_forward, c.context),
         "fetch or import the model again"});
  }
  c.vocabulary = words.shape[0];
  return c;
}

bool is_encoder_architecture(std::string_view architecture) {
  return architecture == "bert" || architecture == kModernBert;
}

const std::vector<std::string>& encoder_linear_modules(std::string_view model_type) {
  static const std::vector<std::string> kModules = {"attn_q", "attn_k", "attn_v", "attn_output", "ffn_up", "ffn_down"};
  static const std::vector<std::string> kFused = {"attn_qkv", "attn_output", "ffn_up", "ffn_down"};
  return model_type == "modernbert" ? kFused : kModules;
}

/// What PEFT's users write: the last part of each module's path.
static std::vector<std::string> hf_module_endings(std::string_view model_type) {
  std::vector<std::string> endings;
  for (const std::string& module : encoder_linear_modules(model_type)) {
    const std::string path = *hf_module_of_encoder("blk.0." + module, model_type);
    std::string ending = path.substr(path.rfind('.') + 1);
    if (std::find(endings.begin(), endings.end(), ending) == endings.end()) endings.push_back(std::move(ending));
  }
  return endings;
}

/// The modules of so many layers whose whole path the pattern matches, as PEFT's re.fullmatch. Throws where it is none.
static std::vector<std::string> matched_modules(const std::string& text, std::string_view model_type,
                                                std::int64_t layers) {
  std::regex pattern;
  try {
    pattern = std::regex(text);
  } catch (const std::regex_error& error) {
    throw Exception({ErrorCode::kInvalidArgument,
                     fmt::format("lora.target_modules: '{}' is no regular expression: {}", text, error.what()), ""});
  }
  std::vector<std::string> found;
  for (std::int64_t l = 0; l < layers; ++l) {
    for (const std::string& module : encoder_linear_modules(model_type)) {
      const std::string ours = fmt::format("blk.{}.{}", l, module);
      const std::string path = *hf_module_of_encoder(ours, model_type);
      if (std::regex_match(path, pattern) || std::regex_match(ours, pattern) ||
          std::regex_match(std::string(hf_model_prefix(model_type)) + path, pattern))
        found.push_back(ours);
    }
  }
  return found;
}

std::vector<std::string> resolve_lora_targets(const std::vector<std::string>& names, std::string_view model_type,
                                              std::int64_t layers) {
  const auto& modules = encoder_linear_modules(model_type);
  std::set<std::string> chosen;
  for (const std::string& name : names) {
    bool known = false;
    for (const std::string& module : modules) {
      // PEFT matches the end of the module's path: "dense" is every path that ends in ".dense".
      const std::string hf = *hf_module_of_encoder("blk.0." + module, model_type);
      if (name != "all-linear" && name != module && !hf.ends_with("." + name)) continue;
      known = true;
      for (std::int64_t l = 0; l < layers; ++l) chosen.insert(fmt::format("blk.{}.{}", l, module));
    }
    if (!known && name.find_first_of(".*+?()[]|\\^$") != std::string::npos) {
      const auto matched = matched_modules(name, model_type, layers);
      known = !matched.empty();
      chosen.insert(matched.begin(), matched.end());
    }
    if (!known) {
      throw Exception({ErrorCode::kInvalidArgument,
                       fmt::format("lora.target_modules: '{}' is not a module of this encoder", name),
                       fmt::format("known: all-linear, {}, {}, or a regular expression that a module's whole path "
                                   "matches, such as {}",
                                   fmt::join(modules, ", "), fmt::join(hf_module_endings(model_type), ", "),
                                   *hf_module_of_encoder("blk.0." + modules.front(), model_type))});
    }
  }
  if (chosen.empty()) {
    throw Exception({ErrorCode::kInvalidArgument,
                     "lora.target_modules is empty: nothing would be trained in the encoder",
                     "name modules, or \"all-linear\""});
  }
  std::vector<std::string> targets;
  for (std::int64_t l = 0; l < layers; ++l) {
    for (const std::string& module : modules) {
      if (std::string name = fmt::format("blk.{}.{}", l, module); chosen.contains(name))
        targets.push_back(std::move(name));
    }
  }
  return targets;
}

}  // namespace tailor::tune
