#pragma once
/// WordPiece (Wu et al., arXiv:1609.08144; BERT's form): the longest piece that fits, from the left, a word at a time.
/// Ids equal those of the tokenizers library. llama.cpp's own version differs from it in control characters, in newer
/// Unicode accents and punctuation, in the symbol U+2581 and in words of more than 100 characters.

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "model/bert_normalizer.h"
#include "model/bert_vocabulary.h"
#include "model/word_cache.h"

namespace tailor {

/// Read-only after construction; safe to share between threads.
class WordPiece {
 public:
  /// `vocabulary.tokens` in BERT's own form ("##ing"). Control and unused tokens are never made from text.
  explicit WordPiece(BertVocabulary vocabulary);
  WordPiece(const WordPiece&) = delete;  // the look-up tables point into the vocabulary
  WordPiece& operator=(const WordPiece&) = delete;

  /// Appends the ids of a text; no [CLS], no [SEP]. Stops once there are at least `limit` ids in `out`.
  void encode(std::string_view text, std::size_t limit, std::vector<std::int32_t>& out) const;
  /// The same where control tokens that stand in the text ("[MASK]") become themselves; the longest one first.
  void encode_with_special(std::string_view text, std::size_t limit, std::vector<std::int32_t>& out) const;

  /// The tokenizers library's decoder with clean-up ("don ' t" becomes "don't", no blank before full stops).
  std::string decode(std::span<const std::int32_t> ids, bool show_special) const;

  const BertVocabulary& vocabulary() const { return vocabulary_; }

 private:
  void encode_word(std::string_view word, std::size_t code_points, std::vector<std::int32_t>& out) const;
  /// By the rules for all of Unicode. False: stopped by the limit.
  bool encode_any(std::string_view text, std::size_t limit, WordCache& cache, std::vector<std::int32_t>& out) const;

  BertVocabulary vocabulary_;
  std::unordered_map<std::string_view, std::int32_t> starts_;         // of words
  std::unordered_map<std::string_view, std::int32_t> continuations_;  // without "##"
  std::vector<std::int32_t> special_;                                 // control tokens, longest first
  std::size_t longest_piece_ = 0;                                     // bytes
  std::array<AsciiRule, 128> ascii_;
  mutable WordCachePool caches_;
};

}  // namespace tailor
