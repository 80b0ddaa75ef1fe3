#pragma once
/// What config.json of a Hugging Face directory says of an encoder, and where its tensors go in a GGUF file.

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "core/json.h"
#include "core/modern_bert.h"
#include "core/result.h"

namespace tailor {

/// The first three are the same network under three sets of names; the sizes and token tables differ.
enum class EncoderFamily : std::uint8_t {
  kBert,
  kDistilBert,  // no token types
  kRoberta,     // also XLM-RoBERTa; the first rows of the position table belong to padding
  kModernBert,  // import_modern_bert.h
};

struct EncoderConfig {
  EncoderFamily family = EncoderFamily::kBert;
  std::string model_type = "bert";  // as config.json has it
  std::int64_t vocabulary = 0, hidden = 0, layers = 0, heads = 0, intermediate = 0;
  std::int64_t positions = 0;       // that a text can use
  std::int64_t first_position = 0;  // row of the stored table for a text's first token; RoBERTa: pad id + 1
  std::int64_t token_types = 0;     // DistilBERT: 1, a row of zeros
  std::int64_t padding = 0;         // RoBERTa: id of the padding token
  double layer_norm_eps = 1e-12;
  ModernBertLayers modern;  // of that family alone
  std::string pooling;      // ModernBERT's classifier_pooling: "cls", "mean"; empty: not said

  std::string_view architecture() const;  // of the GGUF file
};

/// Reads and checks config.json. Errors: absent or broken file, another architecture, an activation other than GELU,
/// relative positions, a decoder, sizes that make no sense.
Result<EncoderConfig> read_encoder_config(const std::filesystem::path& dir);

/// A tensor of the encoder.
struct EncoderPart {
  std::string source;               // in the safetensors file, without the family's prefix; empty: zeros
  std::string target;               // in the GGUF file
  std::vector<std::int64_t> shape;  // in the GGUF file; row-major, as in safetensors
  bool always_f32 = false;
  std::int64_t skipped_rows = 0;  // rows of the stored tensor before these
  std::vector<std::int64_t> source_shape() const;
};
std::vector<EncoderPart> encoder_parts(const EncoderConfig& config);

/// Name of the word embeddings, as EncoderPart::source.
std::string_view word_embeddings(EncoderFamily family);

/// The names that checkpoints use for a part: with and without the prefix ("bert.", …), LayerNorm.gamma and .beta.
std::vector<std::string> stored_names(EncoderFamily family, const std::string& source);

/// Whether a tensor of this name belongs to the encoder itself, not to a head or to what is computed anew.
bool is_inside_encoder(EncoderFamily family, std::string_view stored_name);

/// "<file>: <what>", with a hint that says what is imported.
Error cannot_import(const std::filesystem::path& file, std::string_view what);

/// A whole number that a real model may have, within [least, limit]; the limits keep products far from overflow.
Result<std::int64_t> read_whole(const std::filesystem::path& file, const Json& json, const char* key,
                                std::int64_t least, std::int64_t limit);

}  // namespace tailor
