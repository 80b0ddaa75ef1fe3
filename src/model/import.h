#pragma once
/// Hugging Face model directories (config.json, *.safetensors, tokenizer) into GGUF files for llama.cpp.
///
/// Supported, from config.json's model_type:
///   bert                  WordPiece vocabulary
///   distilbert            WordPiece vocabulary; token types become one row of zeros
///   roberta, xlm-roberta  byte-level BPE vocabulary only (no SentencePiece); the position table loses the rows of
///                         padding
///   modernbert            byte-level BPE vocabulary; architecture "modern-bert" (import_modern_bert.h)
/// Decoders (core/decoder_layout.h has their tensors, import_decoder_config.h what is refused):
///   llama, mistral, qwen2, qwen3, gemma2, gemma3_text, phi3, gpt2, gpt_neox, falcon, bloom, mpt
///                         byte-level BPE or SentencePiece BPE vocabulary; sharded weights; metadata and values as
///                         llama.cpp's own converter writes them
/// Of encoders: classes …Model, …ForMaskedLM, …ForSequenceClassification, …ForTokenClassification,
/// …ForQuestionAnswering and …ForPreTraining, tensors with or without the family's prefix ("bert.", "distilbert.",
/// "roberta.", "model."), GELU, absolute positions (ModernBERT's are rotary). Heads (pooler, cls, classifier) are left
/// out: the file is the bare encoder, architecture "bert" where nothing else is said. Weights keep their values: f32
/// output is exact, as is kSource. Everything else is refused with one sentence.

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "core/progress.h"
#include "core/result.h"

namespace tailor {

enum class ImportType : std::uint8_t {
  kF32,
  kF16,
  kQ8_0,  // rows that do not fill its blocks become f16
  kBf16,
  kSource,  // each matrix as it is stored (f64 as f32): exact and no larger than the directory
};
std::string_view name_of(ImportType type);  // "f32", "f16", "q8_0", "bf16", "source"

struct ImportOptions {
  ImportType type = ImportType::kF32;  // of matrices; norms, biases, positions and token types stay f32
};

/// What a directory says of itself; the weights' header is read, not the weights.
struct HuggingFaceSummary {
  bool is_decoder = false;
  std::string architecture = "bert";  // in the GGUF file
  std::uint64_t hidden = 0, layers = 0, positions = 0, vocabulary = 0;
  std::uint64_t max_sequence_length = 0;  // sentence-transformers' limit, else positions
  std::uint64_t parameters = 0;           // heads of encoders left out
  std::uint64_t bytes = 0;                // of these weights
  std::string file_type;                  // "f32", "f16", "bf16"
  std::string licence;                    // from the README's front matter
  std::vector<std::string> languages;
};
/// Refuses unsupported architectures as import_hugging_face() does.
Result<HuggingFaceSummary> summarize_hugging_face(const std::filesystem::path& dir);

/// True where `dir` is a directory with a config.json.
bool is_hugging_face_directory(const std::filesystem::path& dir);

/// Writes `out` atomically. Besides llama.cpp's own keys a decoder's file carries what import_decoder.h lists, an
/// encoder's what sentence-transformers adds:
///   bert.pooling_type            1 mean, 2 CLS, 3 last (from modules.json and 1_Pooling/config.json, else ModernBERT's
///                                classifier_pooling; absent: none); so with "modern-bert."
///   tailor.max_sequence_length   u32, from sentence_bert_config.json
///   tailor.normalize             bool, a Normalize module
///   tailor.source_sha256         identity of the directory's content
///   tailor.source_model_type     config.json's: adapters trained on the file are written under that model's names
///   tailor.tokenizer.*           settings of the tokenizer that llama.cpp does not know
///   tailor.source.types, .names  of the tensors, in encoder_parts()' order; .skipped_rows of RoBERTa's positions
/// and the small files of the directory (kept_files.h).
Status import_hugging_face(const std::filesystem::path& dir, const std::filesystem::path& out,
                           const ImportOptions& options = {}, const ProgressFn& progress = {});

/// The same through a cache: "<cache_dir>/<name>-<content hash>-<type>.gguf", made only where absent. A half-made file
/// is never picked up; two processes may race, both get a good file.
Result<std::filesystem::path> import_cached(const std::filesystem::path& dir, const std::filesystem::path& cache_dir,
                                            const ImportOptions& options = {}, const ProgressFn& progress = {});

}  // namespace tailor
