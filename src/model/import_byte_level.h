#pragma once
/// The byte-level BPE tokenizer of a Hugging Face RoBERTa or ModernBERT directory (Radford et al., GPT-2: pairs of
/// bytes merged in the order of training), as GGUF wants it.

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "core/result.h"
#include "model/gguf_writer.h"

namespace tailor {

struct ByteLevelVocabulary {
  std::vector<std::string> tokens;   // in GPT-2's alphabet ("Ġhouse"); added tokens as they are
  std::vector<std::int32_t> types;   // llama.cpp's token types: 1 normal, 3 control, 4 user-defined, 5 unused
  std::vector<std::string> merges;   // "left right", first merged first
  std::int32_t cls = -1, sep = -1;   // put before and after a text
  std::int32_t unk = -1, mask = -1;  // -1: none
  bool add_prefix_space = false;     // a text that does not begin with a blank is given one
  bool composed = false;             // texts are brought to Unicode's NFC first
};

/// Reads tokenizer.json, else vocab.json with merges.txt. `rows` is the number of embedding rows: a smaller vocabulary
/// is filled up with unused "[PAD<id>]" tokens, a larger one is an error. Other tokenizers (SentencePiece, WordPiece)
/// and settings under which llama.cpp would give other ids are refused with one sentence.
Result<ByteLevelVocabulary> read_byte_level_vocabulary(const std::filesystem::path& dir, std::int64_t rows);

/// The keys "tokenizer.ggml.*" and "tailor.tokenizer.*". `pre` is llama.cpp's name of a pre-tokenizer with GPT-2's
/// pattern.
void set_vocabulary(GgufWriter& writer, const ByteLevelVocabulary& vocabulary, std::int64_t padding, const char* pre);

}  // namespace tailor
