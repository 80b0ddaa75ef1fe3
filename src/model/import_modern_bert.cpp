#include "model/import_modern_bert.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>

#include "model/gguf_file.h"

namespace tailor {

namespace fs = std::filesystem;

Status read_modern_bert(const fs::path& file, const Json& json, EncoderConfig& c) {
  if (c.hidden % c.heads != 0 || c.hidden / c.heads % 2 != 0) {
    return cannot_import(
        file, fmt::format("hidden_size {} does not divide into {} heads of an even width", c.hidden, c.heads));
  }
  const auto layers = read_modern_bert_layers(json, c.layers);
  if (!layers) return cannot_import(file, layers.error().message);
  c.modern = *layers;
  c.layer_norm_eps = 1e-5;  // ModernBertConfig's own
  c.token_types = 1;
  c.padding = std::min<std::int64_t>(50'283, c.vocabulary - 1);
  if (const auto pad = json.find("pad_token_id"); pad != json.end() && !pad->is_null()) {
    TAILOR_TRY(c.padding, read_whole(file, json, "pad_token_id", 0, c.vocabulary - 1));
  }
  if (const Json pooling = json.value("classifier_pooling", Json()); pooling == "cls" || pooling == "mean")
    c.pooling = pooling.get<std::string>();
  return {};
}

std::vector<EncoderPart> modern_bert_parts(const EncoderConfig& c) {
  std::vector<EncoderPart> parts;
  const auto matrix = [&](const std::string& source, const std::string& target, std::int64_t out, std::int64_t in) {
    parts.push_back({source + ".weight", target + ".weight", {out, in}});
  };
  const auto norm = [&](const std::string& source, const std::string& target) {
    parts.push_back({source + ".weight", target + ".weight", {c.hidden}, true});
  };
  parts.push_back({std::string(word_embeddings(c.family)), "token_embd.weight", {c.vocabulary, c.hidden}});
  norm("embeddings.norm", "token_embd_norm");
  for (std::int64_t i = 0; i < c.layers; ++i) {
    const std::string from = fmt::format("layers.{}.", i), to = fmt::format("blk.{}.", i);
    if (i > 0) norm(from + "attn_norm", to + "attn_norm");  // the embeddings' norm stands before the first layer
    matrix(from + "attn.Wqkv", to + "attn_qkv", 3 * c.hidden, c.hidden);
    matrix(from + "attn.Wo", to + "attn_output", c.hidden, c.hidden);
    norm(from + "mlp_norm", to + "ffn_norm");
    matrix(from + "mlp.Wi", to + "ffn_up", 2 * c.intermediate, c.hidden);
    matrix(from + "mlp.Wo", to + "ffn_down", c.hidden, c.intermediate);
  }
  norm("final_norm", "output_norm");
  return parts;
}

void set_modern_bert(GgufWriter& writer, const EncoderConfig& c) {
  const auto u32 = [](std::int64_t n) { return GgufValue::u32(static_cast<std::uint32_t>(n)); };
  writer.set("modern-bert.vocab_size", u32(c.vocabulary));
  writer.set("modern-bert.attention.sliding_window", u32(c.modern.window));
  writer.set("modern-bert.attention.sliding_window_pattern", u32(c.modern.global_every));
  writer.set("modern-bert.rope.scaling.type", GgufValue::string("none"));
  writer.set("modern-bert.rope.freq_base", GgufValue::f32(static_cast<float>(c.modern.global_base)));
  writer.set("modern-bert.rope.freq_base_swa", GgufValue::f32(static_cast<float>(c.modern.local_base)));
  writer.set("modern-bert.hidden_activation", GgufValue::string("gelu"));
}

Result<Json> modern_bert_config_json(const GgufFile& file) {
  Json config = {{"architectures", {"ModernBertModel"}}, {"model_type", "modernbert"}};
  const std::pair<const char*, const char*> keys[] = {{"hidden_size", "modern-bert.embedding_length"},
                                                      {"num_hidden_layers", "modern-bert.block_count"},
                                                      {"num_attention_heads", "modern-bert.attention.head_count"},
                                                      {"intermediate_size", "modern-bert.feed_forward_length"},
                                                      {"max_position_embeddings", "modern-bert.context_length"}};
  for (const auto& [name, key] : keys) {
    TAILOR_TRY(config[name], file.integer(key));
  }
  const auto number_or = [&](const char* key, double otherwise) {
    const GgufValue* value = file.find(key);
    return value == nullptr ? otherwise : value->as_number().value_or(otherwise);
  };
  ModernBertLayers layers;
  TAILOR_TRY(layers.window, file.integer("modern-bert.attention.sliding_window"));
  constexpr const char* kPattern = "modern-bert.attention.sliding_window_pattern";
  if (const GgufValue* pattern = file.find(kPattern)) {
    layers.global_every = pattern->as_integer().value_or(0);
    if (layers.global_every < 1)
      return cannot_import(file.path(), fmt::format("metadata '{}' is not a whole number from 1 on", kPattern));
  }
  layers.global_base = number_or("modern-bert.rope.freq_base", 10'000);  // llama.cpp's own
  layers.local_base = number_or("modern-bert.rope.freq_base_swa", 10'000);
  write_modern_bert_layers(layers, config["num_hidden_layers"].get<std::int64_t>(), config);
  config["vocab_size"] = file.tensor("token_embd.weight")->shape.back();
  TAILOR_TRY(const double eps, file.number("modern-bert.attention.layer_norm_epsilon"));
  config["norm_eps"] = std::strtod(fmt::format("{}", static_cast<float>(eps)).c_str(), nullptr);
  for (const auto& [name, key] : {std::pair{"pad_token_id", "padding"},
                                  {"bos_token_id", "bos"},
                                  {"eos_token_id", "eos"},
                                  {"cls_token_id", "cls"},
                                  {"sep_token_id", "seperator"}}) {
    const GgufValue* id = file.find(fmt::format("tokenizer.ggml.{}_token_id", key));
    config[name] = id != nullptr && id->as_integer() ? Json(*id->as_integer()) : Json();
  }
  if (const double pooling = number_or("modern-bert.pooling_type", 0); pooling == 1 || pooling == 2)
    config["classifier_pooling"] = pooling == 1 ? "mean" : "cls";
  return config;
}

}  // namespace tailor
