#pragma once
/// ModernBERT (Warner et al., arXiv:2412.13663) in Hugging Face directories and in GGUF files (architecture
/// "modern-bert"): rotary positions, windows of attention in most layers, norms before each part, a gated feed-forward.

#include <filesystem>
#include <vector>

#include "core/json.h"
#include "core/result.h"
#include "model/gguf_writer.h"
#include "model/import_config.h"

namespace tailor {

class GgufFile;

/// Reads what this family alone has into `config`; the sizes are there already.
Status read_modern_bert(const std::filesystem::path& file, const Json& json, EncoderConfig& config);

std::vector<EncoderPart> modern_bert_parts(const EncoderConfig& config);

/// The metadata that BERT does not have, as llama.cpp's own converter writes it.
void set_modern_bert(GgufWriter& writer, const EncoderConfig& config);

/// config.json from a file's metadata.
Result<Json> modern_bert_config_json(const GgufFile& file);

}  // namespace tailor
