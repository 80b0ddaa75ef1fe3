#pragma once
/// Hugging Face directories of decoders into GGUF files; called by import.h, which says what is supported.

#include <filesystem>

#include "core/progress.h"
#include "core/result.h"
#include "model/import.h"

namespace tailor {

Result<HuggingFaceSummary> summarize_decoder(const std::filesystem::path& dir);

/// Besides llama.cpp's keys and the kept files (kept_files.h) the file carries:
///   tailor.source_sha256, tailor.source_model_type   as for encoders
///   tailor.source.types   type of the tensors ("F32", "BF16", …): one, or one each in decoder_tensors()' order
///   tailor.source.names   their names, where they are not …ForCausalLM's
///   tailor.exact.<name>   values of a tensor that 1 + w would round (Gemma's norms)
Status import_decoder(const std::filesystem::path& dir, const std::filesystem::path& out, const ImportOptions& options,
                      const ProgressFn& progress);

}  // namespace tailor
