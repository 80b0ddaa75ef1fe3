#pragma once
/// Names of the tensors and settings of BERT, DistilBERT, RoBERTa and ModernBERT in Hugging Face files and in GGUF,
/// both ways. The first three are one network under three sets of names; `model_type` is config.json's.

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/json.h"
#include "core/result.h"

namespace tailor::tune {

class BaseWeights;

/// GGUF metadata key of the model_type that a file was imported from; BaseWeights of a directory has it too.
inline constexpr std::string_view kSourceModelType = "tailor.source_model_type";

/// The model_type: as the file says, else by its architecture ("bert", "modernbert").
std::string hf_model_type(const BaseWeights& weights);

/// "encoder.layer.3.attention.self.query.weight" -> "blk.3.attn_q.weight"; a leading "bert." (of the family) is
/// ignored. Tensors that the encoder does not use (pooler, position_ids, classifier) give nullopt.
std::optional<std::string> gguf_name_of_encoder(std::string_view hf_name, std::string_view model_type = "bert");
/// The other way; a name that the family does not have (DistilBERT: token types) gives nullopt.
std::optional<std::string> hf_name_of_encoder(std::string_view gguf_name, std::string_view model_type = "bert");

/// "blk.3.attn_q" -> "encoder.layer.3.attention.self.query": the module's name as PEFT knows it. Not a layer: nullopt.
std::optional<std::string> hf_module_of_encoder(std::string_view gguf_module, std::string_view model_type = "bert");
/// "bert.", what stands before the path in a model with a head.
std::string_view hf_model_prefix(std::string_view model_type);
/// "encoder.layer.", what stands before a layer's number.
std::string_view hf_layer_prefix(std::string_view model_type);

/// A Hugging Face directory: weight files, and config.json as GGUF metadata ("bert.block_count", …).
struct HfModel {
  std::vector<std::filesystem::path> shards;
  std::map<std::string, double, std::less<>> numbers;
  std::map<std::string, std::string, std::less<>> texts;
  std::int64_t first_position = 0;  // RoBERTa: rows of the position table before a text's first (padding's)
};
/// `only` names one weight file; empty: model.safetensors, or the shards of model.safetensors.index.json.
/// Errors: no config.json, another model_type, an activation other than gelu, absent files.
Result<HfModel> read_hf_model(const std::filesystem::path& dir, const std::filesystem::path& only);

/// How config.json describes this encoder, for transformers to load it as the bare model of its family.
Json hf_encoder_config(const BaseWeights& weights);
/// Rows that the family's position table has before a text's first: 2 for RoBERTa (its padding token is 1), else 0.
std::int64_t hf_first_position(const BaseWeights& weights);

}  // namespace tailor::tune
