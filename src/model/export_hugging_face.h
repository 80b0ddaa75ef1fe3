#pragma once
/// GGUF files of decoders and BERT-like encoders as Hugging Face directories: the way back of import.h.

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "core/json.h"
#include "core/progress.h"
#include "core/result.h"
#include "model/gguf_file.h"

namespace tailor {

enum class ExportType : std::uint8_t {
  kSource,  // the type that the file's origin had where it holds the values exactly, else f32
  kF32,
  kF16,
  kBf16,
};

struct ExportOptions {
  ExportType type = ExportType::kSource;
  std::uint64_t shard_bytes = 5'000'000'000;  // weights above this become several files and an index
};

struct ExportReport {
  std::vector<std::string> files;  // in the directory
  std::vector<std::string> notes;  // one sentence for each thing that could not be written exactly
};

/// Writes config.json, the weights and the tokenizer's files into `out_dir`, which must not hold a model yet.
///
/// A file that import_hugging_face() made from an unquantised directory gives back the same configuration and tokenizer
/// files byte by byte and the same tensors bit by bit (imported as f32 or kSource; as f16 or bf16 where the source is
/// of that type). Of other files config.json is made from the metadata, tokenizer.json from the vocabulary (byte-level
/// BPE with a pre-tokenizer that pre_tokenizer_json() knows, SentencePiece BPE). Quantised weights are written as they
/// dequantise, with a note. Of encoders the heads are gone, as import.h says. Errors: not a supported model, a tensor
/// that is missing or has another shape, a directory in use, disk errors; a failed export leaves no config.json behind.
Result<ExportReport> export_hugging_face(const std::filesystem::path& gguf, const std::filesystem::path& out_dir,
                                         const ExportOptions& options = {}, const ProgressFn& progress = {});

/// config.json from the metadata of a decoder's file.
Result<Json> decoder_config_json(const GgufFile& file);

/// tokenizer.json and tokenizer_config.json from the vocabulary of a decoder's file; an error says why not.
struct TokenizerFiles {
  Json tokenizer, settings;
};
Result<TokenizerFiles> tokenizer_files(const GgufFile& file);

}  // namespace tailor
