#include "tune/hf_names.h"

#include <fmt/format.h>

#include <set>
#include <span>
#include <utility>

#include "core/decoder_layout.h"
#include "core/json.h"
#include "core/modern_bert.h"
#include "tune/encoder.h"
#include "tune/weights.h"

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
constexpr NamePair kModernBertLayer[] = {
    {"attn_norm", "attn_norm"}, {"attn.Wqkv", "attn_qkv"}, {"attn.Wo", "attn_output"},
    {"mlp_norm", "ffn_norm"},   {"mlp.Wi", "ffn_up"},      {"mlp.Wo", "ffn_down"},
};
constexpr NamePair kGlobal[] = {
    {"embeddings.word_embeddings", "token_embd"},
    {"embeddings.position_embeddings", "position_embd"},
    {"embeddings.token_type_embeddings", "token_types"},
    {"embeddings.LayerNorm", "token_embd_norm"},
};
constexpr NamePair kModernBertGlobal[] = {
    {"embeddings.tok_embeddings", "token_embd"},
    {"embeddings.norm", "token_embd_norm"},
    {"final_norm", "output_norm"},
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
constexpr NamePair kDistilBertNumbers[] = {
    {"n_layers", "bert.block_count"},
    {"dim", "bert.embedding_length"},
    {"hidden_dim", "bert.feed_forward_length"},
    {"n_heads", "bert.attention.head_count"},
    {"max_position_embeddings", "bert.context_length"},
    {"vocab_size", "bert.vocab_size"},
};
constexpr NamePair kModernBertNumbers[] = {
    {"num_hidden_layers", "modern-bert.block_count"},
    {"hidden_size", "modern-bert.embedding_length"},
    {"intermediate_size", "modern-bert.feed_forward_length"},
    {"num_attention_heads", "modern-bert.attention.head_count"},
    {"max_position_embeddings", "modern-bert.context_length"},
    {"norm_eps", "modern-bert.attention.layer_norm_epsilon"},
    {"vocab_size", "modern-bert.vocab_size"},
};

struct Family {
  std::string_view model_type, class_name, prefix, layer_prefix, activation_key;
  std::span<const NamePair> layer, numbers;
  bool token_types = true;
  std::span<const NamePair> global = kGlobal;
  std::string_view architecture = "bert";
};
const Family kFamilies[] = {
    {"bert", "BertModel", "bert.", "encoder.layer.", "hidden_act", kLayer, kNumbers},
    {"distilbert", "DistilBertModel", "distilbert.", "transformer.layer.", "activation", kDistilBertLayer,
     kDistilBertNumbers, false},
    {"roberta", "RobertaModel", "roberta.", "encoder.layer.", "hidden_act", kLayer, kNumbers},
    {"xlm-roberta", "XLMRobertaModel", "roberta.", "encoder.layer.", "hidden_act", kLayer, kNumbers},
    {"modernbert", "ModernBertModel", "model.", "layers.", "hidden_activation", kModernBertLayer, kModernBertNumbers,
     false, kModernBertGlobal, "modern-bert"},
};

const Family* find_family(std::string_view model_type) {
  for (const Family& family : kFamilies) {
    if (family.model_type == model_type) return &family;
  }
  return nullptr;
}
/// A file that does not say where it came from has BERT's names.
const Family& family_of(std::string_view model_type) {
  const Family* family = find_family(model_type);
  return family == nullptr ? kFamilies[0] : *family;
}
const Family& family_of(const BaseWeights& weights) {
  return family_of(hf_model_type(weights));
}
bool is_roberta(const Family& family) {
  return family.prefix == "roberta.";
}

bool is_modern(const Family& family) {
  return family.architecture == "modern-bert";
}

constexpr double kModernBertEps = 1e-5;      // ModernBertConfig's own
constexpr double kDistilBertEps = 1e-12;     // config.json does not hold it
constexpr std::int64_t kRobertaPadding = 1;  // RobertaConfig's own

Error bad_model(const fs::path& file, std::string what, std::string hint = "") {
  return {ErrorCode::kCorruptData, fmt::format("{}: {}", file.string(), what), std::move(hint)};
}

/// "3.rest" -> {"3", "rest"}.
std::optional<std::pair<std::string_view, std::string_view>> split_number(std::string_view text) {
  const auto end = text.find('.');
  if (end == std::string_view::npos || end == 0 ||
      text.substr(0, end).find_first_not_of("0123456789") != std::string_view::npos)
    return std::nullopt;
  return std::pair{text.substr(0, end), text.substr(end + 1)};
}

}  // namespace

std::string hf_model_type(const BaseWeights& weights) {
  return weights.text(kSourceModelType).value_or(weights.architecture() == "modern-bert" ? "modernbert" : "bert");
}

std::optional<std::string> gguf_name_of_encoder(std::string_view name, std::string_view model_type) {
  const Family& family = family_of(model_type);
  if (name.starts_with(family.prefix)) name.remove_prefix(family.prefix.size());
  const auto dot = name.rfind('.');
  if (dot == std::string_view::npos) return std::nullopt;
  std::string_view kind = name.substr(dot + 1);
  if (kind == "gamma") kind = "weight";  // checkpoints converted from TensorFlow
  if (kind == "beta") kind = "bias";
  if (kind != "weight" && kind != "bias") return std::nullopt;
  const std::string_view module = name.substr(0, dot);
  for (const auto& [hf, gguf] : family.global) {
    if (module == hf) return fmt::format("{}.{}", gguf, kind);
  }
  if (!module.starts_with(family.layer_prefix)) return std::nullopt;
  const auto parts = split_number(module.substr(family.layer_prefix.size()));
  if (!parts) return std::nullopt;
  for (const auto& [hf, gguf] : family.layer) {
    if (parts->second == hf) return fmt::format("blk.{}.{}.{}", parts->first, gguf, kind);
  }
  return std::nullopt;
}

std::optional<std::string> hf_name_of_encoder(std::string_view name, std::string_view model_type) {
  const Family& family = family_of(model_type);
  const auto dot = name.rfind('.');
  if (dot == std::string_view::npos) return std::nullopt;
  const std::string_view module = name.substr(0, dot), kind = name.substr(dot + 1);
  if (module == "token_types" && !family.token_types) return std::nullopt;
  for (const auto& [hf, gguf] : family.global) {
    if (module == gguf) return fmt::format("{}.{}", hf, kind);
  }
  const auto hf = hf_module_of_encoder(module, model_type);
  if (!hf) return std::nullopt;
  return fmt::format("{}.{}", *hf, kind);
}

std::string_view hf_model_prefix(std::string_view model_type) {
  return family_of(model_type).prefix;
}

std::string_view hf_layer_prefix(std::string_view model_type) {
  return family_of(model_type).layer_prefix;
}

std::optional<std::string> hf_module_of_encoder(std::string_view name, std::string_view model_type) {
  if (!name.starts_with("blk.")) return std::nullopt;
  const auto parts = split_number(name.substr(4));
  if (!parts) return std::nullopt;
  const Family& family = family_of(model_type);
  for (const auto& [hf, gguf] : family.layer) {
    if (parts->second == gguf) return fmt::format("{}{}.{}", family.layer_prefix, parts->first, hf);
  }
  return std::nullopt;
}

std::int64_t hf_first_position(const BaseWeights& weights) {
  if (!is_roberta(family_of(weights))) return 0;
  return static_cast<std::int64_t>(
             weights.number("tokenizer.ggml.padding_token_id").value_or(static_cast<double>(kRobertaPadding))) +
         1;
}

/// What ModernBERT's config.json holds besides.
static void add_modern_bert(const BaseWeights& weights, Json& config) {
  const EncoderConfig c = EncoderConfig::read(weights);
  ModernBertLayers layers = *c.modern;
  if (layers.window < 1) layers.window = ModernBertLayers().window;  // which no layer looks at
  write_modern_bert_layers(layers, c.layers, config);
  for (const auto& [name, key] :
       {NamePair{"pad_token_id", "padding"}, NamePair{"bos_token_id", "bos"}, NamePair{"eos_token_id", "eos"},
        NamePair{"cls_token_id", "cls"}, NamePair{"sep_token_id", "seperator"}}) {
    const auto id = weights.number(fmt::format("tokenizer.ggml.{}_token_id", key));
    config[std::string(name)] = id ? Json(static_cast<std::int64_t>(*id)) : Json();
  }
  if (const auto pooling = weights.number("modern-bert.pooling_type"); pooling && (*pooling == 1 || *pooling == 2))
    config["classifier_pooling"] = *pooling == 1 ? "mean" : "cls";
}

Json hf_encoder_config(const BaseWeights& weights) {
  const Family& family = family_of(weights);
  const std::int64_t first = hf_first_position(weights);
  Json config = {{"architectures", Json::array({family.class_name})},
                 {"model_type", family.model_type},
                 {family.activation_key, "gelu"},
                 {"vocab_size", weights.stored("token_embd.weight").shape[0]}};
  for (const auto& [hf, gguf] : family.numbers) {
    const auto value = weights.number(gguf);
    if (!value || hf == "vocab_size") continue;
    if (hf == "layer_norm_eps" ||
        hf == "norm_eps")  // the shortest number that reads back as this float: 1e-12, not 9.9999999999999998e-13
      config[std::string(hf)] = std::stod(fmt::format("{}", static_cast<float>(*value)));
    else
      config[std::string(hf)] = static_cast<std::int64_t>(*value) + (hf == "max_position_embeddings" ? first : 0);
  }
  if (family.token_types) {
    const StoredTensor& types = weights.stored("token_types.weight");
    config["type_vocab_size"] = types.shape.size() == 2 ? types.shape[0] : 1;
  }
  if (first > 0) config["pad_token_id"] = first - 1;
  if (is_modern(family)) add_modern_bert(weights, config);
  config["dtype"] = "float32";
  return config;
}

static Status read_modern_bert(const fs::path& file, const Json& config, HfModel& model) {
  const auto layers =
      read_modern_bert_layers(config, static_cast<std::int64_t>(model.numbers["modern-bert.block_count"]));
  if (!layers) return bad_model(file, layers.error().message);
  model.numbers.emplace("modern-bert.attention.layer_norm_epsilon", kModernBertEps);
  model.numbers["modern-bert.attention.sliding_window"] = static_cast<double>(layers->window);
  model.numbers["modern-bert.attention.sliding_window_pattern"] = static_cast<double>(layers->global_every);
  model.numbers["modern-bert.rope.freq_base"] = layers->global_base;
  model.numbers["modern-bert.rope.freq_base_swa"] = layers->local_base;
  if (config.contains("pad_token_id") && config["pad_token_id"].is_number_integer())
    model.numbers["tokenizer.ggml.padding_token_id"] = config["pad_token_id"].get<double>();
  return {};
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
  const Family* family = find_family(type);
  if (family == nullptr && family_of_model_type(type)) {
    return bad_model(config_file,
                     fmt::format("model_type '{}' is a decoder, and decoders are read from GGUF files", type),
                     fmt::format("`tailor models import {}` makes one, without loss: give it as base", dir.string()));
  }
  if (family == nullptr) {
    return bad_model(
        config_file,
        fmt::format("model_type is '{}', expected 'bert', 'distilbert', 'roberta', 'xlm-roberta' or 'modernbert'",
                    type),
        "import the directory to GGUF first and give that file as base");
  }
  const std::string activation_key(family->activation_key);
  if (const std::string act = text(activation_key.c_str(), "gelu"); act != "gelu") {
    return bad_model(config_file, fmt::format("{} is '{}', expected 'gelu'", activation_key, act));
  }
  if (const std::string kind = text("position_embedding_type", "absolute"); kind != "absolute") {
    return bad_model(config_file, fmt::format("position_embedding_type is '{}', expected 'absolute'", kind));
  }
  model.texts["general.architecture"] = family->architecture;
  model.texts[std::string(kSourceModelType)] = type;
  for (const auto& [hf, gguf] : family->numbers) {
    if (config.contains(hf) && config[std::string(hf)].is_number()) {
      model.numbers[std::string(gguf)] = config[std::string(hf)].get<double>();
    }
  }
  if (is_modern(*family)) TAILOR_CHECK(read_modern_bert(config_file, config, model));
  if (type == "distilbert") model.numbers["bert.attention.layer_norm_epsilon"] = kDistilBertEps;
  if (is_roberta(*family)) {
    Json pad = kRobertaPadding;
    if (config.contains("pad_token_id") && !config["pad_token_id"].is_null()) pad = config["pad_token_id"];
    if (!pad.is_number_integer() || pad.get<std::int64_t>() < 0 || pad.get<std::int64_t>() > 1'000'000)
      return bad_model(config_file, "pad_token_id should be a token's number");
    model.numbers["tokenizer.ggml.padding_token_id"] = pad.get<double>();
    model.first_position = pad.get<std::int64_t>() + 1;
    model.numbers["bert.context_length"] -= static_cast<double>(model.first_position);
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
