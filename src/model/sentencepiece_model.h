#pragma once
/// tokenizer.model files of SentencePiece: the pieces, and the settings that change a tokenisation.
/// Format: sentencepiece_model.proto of github.com/google/sentencepiece; untrusted bytes, every length is checked.

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "core/result.h"

namespace tailor {

struct SentencePieceModel {
  struct Piece {
    std::string text;
    float score = 0;
    std::int32_t type = 1;  // 1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte: llama.cpp's numbers too
  };
  std::vector<Piece> pieces;
  bool is_bpe = false;  // else unigram, words or characters
  bool byte_fallback = false;
  bool add_dummy_prefix = true;
  bool remove_extra_whitespaces = true;
  bool normalizes = false;  // holds a table of character replacements
  std::int32_t unk = 0, bos = 1, eos = 2, pad = -1;
};

Result<SentencePieceModel> read_sentencepiece_model(const std::filesystem::path& file);

}  // namespace tailor
