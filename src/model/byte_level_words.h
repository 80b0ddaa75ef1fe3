#pragma once
/// Where the words of byte-level BPE end, for the pre-tokenizers whose rule for ASCII is simple: a word's tokens do not
/// depend on its neighbours, so that they can be kept and used again (word_cache.h). Only where words end is found
/// here; their tokens stay llama.cpp's.

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace tailor {

enum class WordRule : std::uint8_t {
  kUnknown,      // texts go to llama.cpp whole
  kGpt2,         // 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
  kGpt2NoDigit,  // every digit on its own first, then the same on what lies between (SmolLM, StarCoder)
};
/// By the name of the pre-tokenizer, as `tokenizer.ggml.pre` has it.
WordRule word_rule(std::string_view pre_tokenizer);

/// The end of the ASCII word that begins at `at` of `text`, which is ASCII; at < text.size().
std::size_t word_end(WordRule rule, std::string_view text, std::size_t at);

/// A piece of a text whose tokens do not depend on what stands around it: all ASCII (`words`, to be split by
/// word_end()), or with other characters in it.
struct TextPiece {
  std::size_t end = 0;
  bool words = false;
};
/// The piece that begins at `at`, a place where a piece ended or the beginning. Pieces end where a blank stands between
/// ASCII letters.
TextPiece next_piece(std::string_view text, std::size_t at);

}  // namespace tailor
