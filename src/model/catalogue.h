#pragma once
/// Which models there are: the built-in ones, and whatever file or directory the user names.

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "core/result.h"

namespace tailor {

enum class ModelKind : std::uint8_t { kEncoder, kDecoder };
std::string_view name_of(ModelKind kind);  // "encoder", "decoder"

/// What is known of a model without loading it. Sizes are read from the file itself.
struct ModelInfo {
  std::string id;  // "all-minilm-l6-v2"; for a path its file or directory name without ".gguf"
  ModelKind kind = ModelKind::kDecoder;
  std::string architecture;    // "bert", "llama"
  std::filesystem::path path;  // a GGUF file or a Hugging Face directory (see import_cached())
  bool is_hugging_face = false;
  std::uint64_t parameters = 0;
  std::uint64_t context_length = 0;  // positions the model was made for
  std::uint64_t max_sequence_length =
      0;  // tokens its makers recommend for one text (sentence-transformers); else context_length
  std::uint64_t embedding_length = 0;
  std::uint64_t layers = 0;
  std::uint64_t vocabulary = 0;
  std::string file_type;    // "f32", "q4_1", …: the type that most weights have
  std::uint64_t bytes = 0;  // weights on disk
  std::string licence;      // SPDX identifier, lower-case as in the file; empty: not stated
  std::vector<std::string> languages;
  std::string source;  // where the built-in ones come from
};

/// Reads a GGUF file (bert, or a decoder of core/decoder_layout.h's families) or a Hugging Face directory (see
/// import.h); others are refused by name.
Result<ModelInfo> describe_model(const std::filesystem::path& file_or_dir);

/// Built-in ids that are present under `models_dir`, then other models found there, sorted. Broken ones are left out.
std::vector<ModelInfo> list_models(const std::filesystem::path& models_dir);

/// `name` is a built-in id, the name of a directory or GGUF file under `models_dir`, or a path to either. An unknown
/// name is an error that gives the nearest known one; a built-in model that is not there says how to get it.
Result<ModelInfo> resolve_model(const std::string& name, const std::filesystem::path& models_dir);

/// SHA-256 of the model's content (see model_sha256()); slow the first time.
Result<std::string> model_hash(const ModelInfo& model);

struct BuiltInModel {
  std::string_view id;
  ModelKind kind;
  std::string_view relative_path;  // under the models directory
  std::string_view licence;
  std::string_view languages;  // comma-separated
  std::string_view source;
};
const std::vector<BuiltInModel>& built_in_models();

}  // namespace tailor
