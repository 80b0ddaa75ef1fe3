#include "model/import_config.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "core/decoder_layout.h"
#include "core/files.h"
#include "core/json.h"
#include "model/import_modern_bert.h"

namespace tailor {
namespace {

namespace fs = std::filesystem;

/// Names of one family in config.json.
struct Family {
  EncoderFamily family;
  std::string_view model_type;
  std::string_view class_stem;  // of the names in "architectures"
  const char *hidden, *layers, *heads, *intermediate, *activation;
};
constexpr std::array<Family, 5> kFamilies = {{
    {EncoderFamily::kBert, "bert", "Bert", "hidden_size", "num_hidden_layers", "num_attention_heads",
     "intermediate_size", "hidden_act"},
    {EncoderFamily::kDistilBert, "distilbert", "DistilBert", "dim", "n_layers", "n_heads", "hidden_dim", "activation"},
    {EncoderFamily::kRoberta, "roberta", "Roberta", "hidden_size", "num_hidden_layers", "num_attention_heads",
     "intermediate_size", "hidden_act"},
    {EncoderFamily::kRoberta, "xlm-roberta", "XLMRoberta", "hidden_size", "num_hidden_layers", "num_attention_heads",
     "intermediate_size", "hidden_act"},
    {EncoderFamily::kModernBert, "modernbert", "ModernBert", "hidden_size", "num_hidden_layers", "num_attention_heads",
     "intermediate_size", "hidden_activation"},
}};
constexpr std::array<std::string_view, 6> kHeads = {
    "Model",         "ForMaskedLM", "ForSequenceClassification", "ForTokenClassification", "ForQuestionAnswering",
    "ForPreTraining"};

std::string_view prefix_of(EncoderFamily family) {
  switch (family) {
    case EncoderFamily::kBert:
      return "bert.";
    case EncoderFamily::kDistilBert:
      return "distilbert.";
    case EncoderFamily::kRoberta:
      return "roberta.";
    case EncoderFamily::kModernBert:
      return "model.";
  }
  return "";
}

std::string_view layers_prefix(EncoderFamily family) {
  if (family == EncoderFamily::kModernBert) return "layers.";
  return family == EncoderFamily::kDistilBert ? "transformer." : "encoder.";
}

std::string text_of(const Json& json, const char* key, const char* otherwise) {
  const auto it = json.find(key);
  return it != json.end() && it->is_string() ? it->get<std::string>() : std::string(otherwise);
}

Result<Family> find_family(const fs::path& file, const Json& json) {
  std::string architecture;
  if (const auto it = json.find("architectures");
      it != json.end() && it->is_array() && !it->empty() && (*it)[0].is_string()) {
    architecture = (*it)[0].get<std::string>();
  }
  const std::string type = text_of(json, "model_type", "");
  for (const Family& family : kFamilies) {
    if (family.model_type != type) continue;
    const bool known = std::any_of(kHeads.begin(), kHeads.end(), [&](std::string_view head) {
      return architecture == std::string(family.class_stem) + std::string(head);
    });
    if (known || architecture.empty()) return family;
  }
  return cannot_import(file, fmt::format("the architecture is {} (model type '{}'), which cannot be imported",
                                         architecture.empty() ? "not named" : architecture, type));
}

}  // namespace

Result<std::int64_t> read_whole(const fs::path& file, const Json& json, const char* key, std::int64_t least,
                                std::int64_t limit) {
  const auto it = json.find(key);
  if (it == json.end()) return cannot_import(file, fmt::format("'{}' is missing", key));
  if (!it->is_number_unsigned() || it->get<std::uint64_t>() < static_cast<std::uint64_t>(least) ||
      it->get<std::uint64_t>() > static_cast<std::uint64_t>(limit)) {
    return cannot_import(file, fmt::format("'{}' is {}, expected a whole number from {} to {}", key,
                                           dump_json(*it).substr(0, 40), least, limit));
  }
  return it->get<std::int64_t>();
}

Error cannot_import(const fs::path& file, std::string_view what) {
  return {ErrorCode::kInvalidArgument, fmt::format("{}: {}", file.string(), what),
          "Tailor imports encoders (model types bert, distilbert, roberta, xlm-roberta, modernbert) and decoders (" +
              decoder_model_types() + "); give other models as GGUF files"};
}

Result<EncoderConfig> read_encoder_config(const fs::path& dir) {
  const fs::path file = dir / "config.json";
  TAILOR_TRY(const Json json, read_json(file));
  if (!json.is_object()) return cannot_import(file, "not a JSON object");
  TAILOR_TRY(const Family family, find_family(file, json));
  const std::string activation = text_of(json, family.activation, "gelu");
  if (activation != "gelu" && activation != "gelu_new" && activation != "gelu_pytorch_tanh" &&
      activation != "gelu_fast") {
    return cannot_import(file, fmt::format("{} is '{}', expected 'gelu'", family.activation, activation));
  }
  if (const auto p = text_of(json, "position_embedding_type", "absolute"); p != "absolute") {
    return cannot_import(file, fmt::format("position_embedding_type is '{}', expected 'absolute'", p));
  }
  if (json.value("is_decoder", Json(false)) == true)
    return cannot_import(file, "is_decoder is true, expected an encoder");
  EncoderConfig c{.family = family.family, .model_type = std::string(family.model_type)};
  TAILOR_TRY(c.vocabulary, read_whole(file, json, "vocab_size", 1, 4'000'000));
  TAILOR_TRY(c.hidden, read_whole(file, json, family.hidden, 1, 65'536));
  TAILOR_TRY(c.layers, read_whole(file, json, family.layers, 1, 512));
  TAILOR_TRY(c.heads, read_whole(file, json, family.heads, 1, 1024));
  TAILOR_TRY(c.intermediate, read_whole(file, json, family.intermediate, 1, 1'000'000));
  TAILOR_TRY(c.positions, read_whole(file, json, "max_position_embeddings", 1, 1'000'000));
  if (c.family == EncoderFamily::kModernBert) {
    TAILOR_CHECK(read_modern_bert(file, json, c));
  } else if (c.family == EncoderFamily::kDistilBert) {
    c.token_types = 1;
  } else {
    TAILOR_TRY(c.token_types, read_whole(file, json, "type_vocab_size", 1, 1024));
  }
  if (c.family == EncoderFamily::kRoberta) {
    c.padding = 1;  // RobertaConfig's own
    if (json.contains("pad_token_id")) {
      TAILOR_TRY(c.padding, read_whole(file, json, "pad_token_id", 0, c.vocabulary - 1));
    }
    c.first_position = c.padding + 1;
    if (c.positions <= c.first_position) {
      return cannot_import(file, fmt::format("max_position_embeddings is {}, of which RoBERTa with pad_token_id {} "
                                             "leaves none for a text",
                                             c.positions, c.padding));
    }
    c.positions -= c.first_position;
  }
  if (c.hidden % c.heads != 0) {
    return cannot_import(
        file, fmt::format("{} {} is not a multiple of {} {}", family.hidden, c.hidden, family.heads, c.heads));
  }
  const char* eps_key = c.family == EncoderFamily::kModernBert ? "norm_eps" : "layer_norm_eps";
  if (const auto eps = json.find(eps_key); eps != json.end() && c.family != EncoderFamily::kDistilBert) {
    if (!eps->is_number() || eps->get<double>() <= 0 || eps->get<double>() > 0.1) {
      return cannot_import(file, fmt::format("'{}' is not a small positive number", eps_key));
    }
    c.layer_norm_eps = eps->get<double>();
  }
  return c;
}

std::vector<std::int64_t> EncoderPart::source_shape() const {
  std::vector<std::int64_t> stored = shape;
  stored[0] += skipped_rows;
  return stored;
}

std::string_view EncoderConfig::architecture() const {
  return family == EncoderFamily::kModernBert ? "modern-bert" : "bert";
}

std::string_view word_embeddings(EncoderFamily family) {
  return family == EncoderFamily::kModernBert ? "embeddings.tok_embeddings.weight"
                                              : "embeddings.word_embeddings.weight";
}

std::vector<EncoderPart> encoder_parts(const EncoderConfig& c) {
  if (c.family == EncoderFamily::kModernBert) return modern_bert_parts(c);
  const bool distil = c.family == EncoderFamily::kDistilBert;
  std::vector<EncoderPart> parts;
  const auto norm = [&](const std::string& source, const std::string& target) {
    parts.push_back({source + ".weight", target + ".weight", {c.hidden}, true});
    parts.push_back({source + ".bias", target + ".bias", {c.hidden}, true});
  };
  const auto linear = [&](const std::string& source, const std::string& target, std::int64_t out, std::int64_t in) {
    parts.push_back({source + ".weight", target + ".weight", {out, in}, false});
    parts.push_back({source + ".bias", target + ".bias", {out}, true});
  };
  parts.push_back({std::string(word_embeddings(c.family)), "token_embd.weight", {c.vocabulary, c.hidden}, false});
  parts.push_back({"embeddings.position_embeddings.weight",
                   "position_embd.weight",
                   {c.positions, c.hidden},
                   true,
                   c.first_position});
  parts.push_back(
      {distil ? "" : "embeddings.token_type_embeddings.weight", "token_types.weight", {c.token_types, c.hidden}, true});
  norm("embeddings.LayerNorm", "token_embd_norm");
  for (std::int64_t i = 0; i < c.layers; ++i) {
    const std::string from = fmt::format("{}layer.{}.", layers_prefix(c.family), i);
    const std::string to = fmt::format("blk.{}.", i);
    linear(from + (distil ? "attention.q_lin" : "attention.self.query"), to + "attn_q", c.hidden, c.hidden);
    linear(from + (distil ? "attention.k_lin" : "attention.self.key"), to + "attn_k", c.hidden, c.hidden);
    linear(from + (distil ? "attention.v_lin" : "attention.self.value"), to + "attn_v", c.hidden, c.hidden);
    linear(from + (distil ? "attention.out_lin" : "attention.output.dense"), to + "attn_output", c.hidden, c.hidden);
    norm(from + (distil ? "sa_layer_norm" : "attention.output.LayerNorm"), to + "attn_output_norm");
    linear(from + (distil ? "ffn.lin1" : "intermediate.dense"), to + "ffn_up", c.intermediate, c.hidden);
    linear(from + (distil ? "ffn.lin2" : "output.dense"), to + "ffn_down", c.hidden, c.intermediate);
    norm(from + (distil ? "output_layer_norm" : "output.LayerNorm"), to + "layer_output_norm");
  }
  return parts;
}

std::vector<std::string> stored_names(EncoderFamily family, const std::string& source) {
  std::string old = source;
  if (source.find("LayerNorm") != std::string::npos) {
    if (source.ends_with(".weight")) old = source.substr(0, source.size() - 6) + "gamma";
    if (source.ends_with(".bias")) old = source.substr(0, source.size() - 4) + "beta";
  }
  const std::string prefix(prefix_of(family));
  return {source, prefix + source, old, prefix + old};
}

bool is_inside_encoder(EncoderFamily family, std::string_view name) {
  if (const std::string_view prefix = prefix_of(family); name.starts_with(prefix)) name.remove_prefix(prefix.size());
  if (name == "embeddings.position_ids" || name == "embeddings.token_type_ids") return false;
  if (family == EncoderFamily::kModernBert && name.starts_with("final_norm.")) return true;
  return name.starts_with("embeddings.") || name.starts_with(layers_prefix(family));
}

}  // namespace tailor
