#include "tune/hf_names.h"

#include <fmt/format.h>

#include <set>
#include <span>
#include <utility>

#include "core/json.h"

namespace tailor::tune {
namespace fs = std::filesystem;
namespace {

using NamePair = std::pair<std::string_view, std::string_view>;  // Hugging Face, GGUF

constexpr NamePair kLayer[] = {
    {"attention.self.query", "attn_q"},
    {"attention.self.key", "attn_k"},
    {"attention.self.value", "attn_v"},
    {"attention.output.dense", "attn_output"},
    {"attention.output.LayerNorm", "attn_output_norm"},
    {"intermediate.dense", "ffn_up"},
    {"output.dense", "ffn_down"},
    {"output.LayerNorm", "layer_output_norm"},
};
constexpr NamePair kDistilBertLayer[] = {
    {"attention.q_lin", "attn_q"},
    {"attention.k_lin", "attn_k"},
    {"attention.v_lin", "attn_v"},
    {"attention.out_lin", "attn_output"},
    {"sa_layer_norm", "attn_output_norm"},
    {"ffn.lin1", "ffn_up"},
    {"ffn.lin2", "ffn_down"},
    {"output_layer_norm", "layer_output_norm"},
};
constexpr NamePair kGlobal[] = {
    {"embeddings.word_embeddings", "token_embd"},
    {"embeddings.position_embeddings", "position_embd"},
    {"embeddings.token_type_embeddings", "token_types"},
    {"embeddings.LayerNorm", "token_embd_norm"},
};
constexpr NamePair kNumbers[] = {
    {"num_hidden_layers", "bert.block_count"},
    {"hidden_size", "bert.embedding_length"},
    {"intermediate_size", "bert.feed_forward_length"},
    {"num_attention_heads", "bert.attention.head_count"},
    {"max_position_embeddings", "bert.context_length"},
    {"layer_norm_eps", "bert.attention.layer_norm_epsilon"},
    {"vocab_size", "bert.vocab_size"},
};
constexpr std::string_view kLayerPrefix = "encoder.layer.";
constexpr std::string_view kDistilBertPrefix = "transformer.layer.";

Error bad_model(const fs::path& file, std::string what, std::string hint = "") {
  return {ErrorCode::kCorruptData, fmt::format("{}: {}", file.string(), what), std::move(hint)};
}

}  // namespace

std::optional<std::string> gguf_name_of_bert(std::string_view name) {
  if (name.starts_with("bert.")) name.remove_prefix(5);
  const auto dot = name.rfind('.');
  if (dot == std::string_view::npos) return std::nullopt;
  std::string_view kind = name.substr(dot + 1);
  if (kind == "gamma") kind = "weight";  // checkpoints converted from TensorFlow
  if (kind == "beta") kind = "bias";
  if (kind != "weight" && kind != "bias") return std::nullopt;
  const std::string_view module = name.substr(0, dot);
  for (const auto& [hf, gguf] : kGlobal) {
    if (module == hf) return fmt::format("{}.{}", gguf, kind);
  }
  if (!module.starts_with(kLayerPrefix)) return std::nullopt;
  const std::string_view rest = module.substr(kLayerPrefix.size());
  const auto end = rest.find('.');
  if (end == std::string_view::npos || end == 0 ||
      rest.substr(0, end).find_first_not_of("0123456789") != std::string_view::npos) {
    return std::nullopt;
  }
  for (const auto& [hf, gguf] : kLayer) {
    if (rest.substr(end + 1) == hf) return fmt::format("blk.{}.{}.{}", rest.substr(0, end), gguf, kind);
  }
  return std::nullopt;
}

std::string_view hf_layer_prefix(std::string_view model_type) {
  return model_type == "distilbert" ? kDistilBertPrefix : kLayerPrefix;
}

std::optional<std::string> hf_module_of_encoder(std::string_view name, std::string_view model_type) {
  if (!name.starts_with("blk.")) return std::nullopt;
  name.remove_prefix(4);
  const auto end = name.find('.');
  if (end == std::string_view::npos) return std::nullopt;
  const std::span<const NamePair> layer =
      model_type == "distilbert" ? std::span<const NamePair>(kDistilBertLayer) : std::span<const NamePair>(kLayer);
  for (const auto& [hf, gguf] : layer) {
    if (name.substr(end + 1) == gguf) {
      return fmt::format("{}{}.{}", hf_layer_prefix(model_type), name.substr(0, end), hf);
    }
  }
  return std::nullopt;
}

Result<HfModel> read_hf_model(const fs::path& dir, const fs::path& only) {
  HfModel model;
  const fs::path config_file = dir / "config.json";
  TAILOR_TRY(const Json config, read_json(config_file));
  if (!config.is_object()) return bad_model(config_file, "expected a JSON object");
  const auto text = [&](const char* key, std::string fallback) {
    return config.contains(key) && config[key].is_string() ? config[key].get<std::string>() : fallback;
  };
  const std::string type = text("model_type", "");
  if (type != "bert") {
    return bad_model(config_file, fmt::format("model_type is '{}', expected 'bert'", type),
                     "import the directory to GGUF first and give that file as base");
  }
  if (const std::string act = text("hidden_act", "gelu"); act != "gelu") {
    return bad_model(config_file, fmt::format("hidden_act is '{}', expected 'gelu'", act));
  }
  if (const std::string kind = text("position_embedding_type", "absolute"); kind != "absolute") {
    return bad_model(config_file, fmt::format("position_embedding_type is '{}', expected 'absolute'", kind));
  }
  model.texts["general.architecture"] = type;
  for (const auto& [hf, gguf] : kNumbers) {
    if (config.contains(hf) && config[std::string(hf)].is_number()) {
      model.numbers[std::string(gguf)] = config[std::string(hf)].get<double>();
    }
  }
  if (!only.empty()) {
    model.shards.push_back(only);
    return model;
  }
  const fs::path index_file = dir / "model.safetensors.index.json";
  std::error_code ignored;
  if (!fs::exists(index_file, ignored)) {
    model.shards.push_back(dir / "model.safetensors");
    return model;
  }
  TAILOR_TRY(const Json index, read_json(index_file));
  std::set<std::string> names;
  if (index.is_object() && index.contains("weight_map") && index["weight_map"].is_object()) {
    for (const auto& [tensor, shard] : index["weight_map"].items()) {
      // A shard is a plain file name: a path could point anywhere.
      if (!shard.is_string() || shard.get<std::string>().find('/') != std::string::npos) {
        return bad_model(index_file, fmt::format("the shard of '{}' is not a file name", tensor));
      }
      names.insert(shard.get<std::string>());
    }
  }
  if (names.empty()) return bad_model(index_file, "weight_map is missing or empty");
  for (const std::string& name : names) model.shards.push_back(dir / name);
  return model;
}

}  // namespace tailor::tune
