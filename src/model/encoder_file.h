#pragma once
/// What a GGUF file says of an encoder: the config.json that it was made from or could have been made from.

#include <optional>

#include "core/json.h"
#include "core/result.h"
#include "model/gguf_file.h"
#include "model/import_config.h"

namespace tailor {

/// config.json as kept in the file, where it still describes it; else nothing.
std::optional<Json> kept_config(const GgufFile& file, std::uint64_t vocabulary);

/// Kept, or made from the metadata. A RoBERTa of another converter is a BERT as well: its positions begin at 0.
Result<Json> encoder_config_json(const GgufFile& file);

/// The same, read.
Result<EncoderConfig> encoder_config(const Json& config_json);

}  // namespace tailor
