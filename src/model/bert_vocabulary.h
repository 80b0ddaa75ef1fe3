#pragma once
/// The WordPiece vocabulary and normaliser settings of a Hugging Face BERT directory, as GGUF wants them.

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "core/result.h"

namespace tailor {

/// What transformers' BertNormalizer, BertPreTokenizer and WordPiece are told.
struct WordPieceSettings {
  bool lowercase = true;
  bool strip_accents = true;         // where the configuration says null: as lowercase
  bool clean_text = true;            // drop control characters, all white space becomes a blank
  bool handle_chinese_chars = true;  // a blank around each CJK character
  int max_chars_per_word = 100;      // longer words become [UNK]
};

struct BertVocabulary {
  std::vector<std::string> tokens;  // as in vocab.txt ("##ing")
  std::vector<std::int32_t> types;  // llama.cpp's token types: 1 normal, 3 control, 4 user-defined, 5 unused
  std::int32_t unk = -1, cls = -1, sep = -1, pad = -1, mask = -1;  // -1: none
  WordPieceSettings settings;
};

/// Reads tokenizer.json, else vocab.txt with tokenizer_config.json. `rows` is the number of embedding rows: a smaller
/// vocabulary is filled up with unused "[PAD<id>]" tokens, a larger one is an error.
Result<BertVocabulary> read_bert_vocabulary(const std::filesystem::path& dir, std::uint64_t rows);

/// llama.cpp marks words that start a word with U+2581 instead of marking continuations with "##".
/// Two tokens that would become equal (a word "U+2581 x" beside "##x" …) are an error.
Result<std::vector<std::string>> phantom_space_tokens(const BertVocabulary& vocabulary);

}  // namespace tailor
