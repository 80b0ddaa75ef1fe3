#pragma once
/// Names of BERT's tensors (and DistilBERT's modules) and settings in Hugging Face files and in GGUF, both ways.

#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/result.h"

namespace tailor::tune {

/// "encoder.layer.3.attention.self.query.weight" -> "blk.3.attn_q.weight"; a leading "bert." is ignored. Tensors that
/// the encoder does not use (pooler, position_ids, classifier) give nullopt.
std::optional<std::string> gguf_name_of_bert(std::string_view hf_name);

/// "blk.3.attn_q" -> "encoder.layer.3.attention.self.query": the module's name as PEFT knows it, in a model of this
/// model_type (config.json): "distilbert" has names of its own, RoBERTa has BERT's. Not a layer: nullopt.
std::optional<std::string> hf_module_of_encoder(std::string_view gguf_module, std::string_view model_type = "bert");
/// "encoder.layer.", what stands before a layer's number.
std::string_view hf_layer_prefix(std::string_view model_type);

/// A Hugging Face directory: weight files, and config.json as GGUF metadata ("bert.block_count", …).
struct HfModel {
  std::vector<std::filesystem::path> shards;
  std::map<std::string, double, std::less<>> numbers;
  std::map<std::string, std::string, std::less<>> texts;
};
/// `only` names one weight file; empty: model.safetensors, or the shards of model.safetensors.index.json.
/// Errors: no config.json, a model_type other than bert, an activation other than gelu, absent files.
Result<HfModel> read_hf_model(const std::filesystem::path& dir, const std::filesystem::path& only);

}  // namespace tailor::tune
