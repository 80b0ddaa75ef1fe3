#include "model/encoder_file.h"

#include <fmt/format.h>

#include <cstdlib>

#include "core/files.h"
#include "model/import_modern_bert.h"
#include "model/kept_files.h"

namespace tailor {
namespace {

Result<Json> bert_config_json(const GgufFile& file) {
  Json config = {{"architectures", {"BertModel"}}, {"model_type", "bert"}, {"hidden_act", "gelu"}};
  const std::pair<const char*, const char*> keys[] = {{"hidden_size", "bert.embedding_length"},
                                                      {"num_hidden_layers", "bert.block_count"},
                                                      {"num_attention_heads", "bert.attention.head_count"},
                                                      {"intermediate_size", "bert.feed_forward_length"},
                                                      {"max_position_embeddings", "bert.context_length"}};
  for (const auto& [name, key] : keys) {
    TAILOR_TRY(config[name], file.integer(key));
  }
  config["vocab_size"] = file.tensor("token_embd.weight")->shape.back();
  const GgufTensor* types = file.tensor("token_types.weight");
  config["type_vocab_size"] = types != nullptr ? types->shape.back() : 1;
  TAILOR_TRY(const double eps, file.number("bert.attention.layer_norm_epsilon"));
  config["layer_norm_eps"] = std::strtod(fmt::format("{}", static_cast<float>(eps)).c_str(), nullptr);
  return config;
}

}  // namespace

std::optional<Json> kept_config(const GgufFile& file, std::uint64_t vocabulary) {
  const auto text = kept_file(file, "config.json");
  if (!text) return std::nullopt;
  auto json = parse_json(*text, "config.json");
  if (!json || !json->is_object() || json->value("vocab_size", Json()) != vocabulary) return std::nullopt;
  return *std::move(json);
}

Result<Json> encoder_config_json(const GgufFile& file) {
  TAILOR_TRY(const std::string arch, file.architecture());
  const GgufTensor* words = file.tensor("token_embd.weight");
  if (words == nullptr || words->shape.size() != 2) {
    return Error{ErrorCode::kCorruptData,
                 fmt::format("{}: tensor 'token_embd.weight' is missing", file.path().string()), ""};
  }
  if (auto kept = kept_config(file, words->shape[1])) return *std::move(kept);
  return arch == "bert" ? bert_config_json(file) : modern_bert_config_json(file);
}

Result<EncoderConfig> encoder_config(const Json& config_json) {
  const TemporaryDirectory dir("tailor-config");
  TAILOR_CHECK(write_json_atomic(dir.path() / "config.json", config_json));
  return read_encoder_config(dir.path());
}

}  // namespace tailor
