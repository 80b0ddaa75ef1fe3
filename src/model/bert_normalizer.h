#pragma once
/// Texts into words as the tokenizers library's BertNormalizer and BertPreTokenizer do it: code points of BERT's
/// training days (the library's own Unicode tables, bert_unicode_data.inc), so that no word differs from the reference.

#include <array>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "model/bert_vocabulary.h"

namespace tailor {

/// Feeds a text code point by code point and hands out each word. One object per text and thread; cheap to make.
class BertWords {
 public:
  /// `on_word(utf8, code_points)` returns false to stop.
  using OnWord = std::function<bool(std::string_view, std::size_t)>;
  BertWords(const WordPieceSettings& settings, OnWord on_word);

  /// Broken UTF-8 counts as U+FFFD. Words end at the end of the text. False where on_word stopped it.
  bool run(std::string_view text);

 private:
  struct Mark {
    std::uint32_t code_point;
    std::uint8_t combining_class;
  };
  void take(std::uint32_t code_point);   // after cleaning
  void strip(std::uint32_t code_point);  // decomposition without marks
  void place(std::uint32_t code_point);  // canonical ordering of what is left
  void flush_marks();
  void lower(std::uint32_t code_point);
  void append(std::uint32_t code_point);  // splits at white space and punctuation
  void end_word();

  const WordPieceSettings& settings_;
  OnWord on_word_;
  bool going_ = true;
  std::string word_;
  std::size_t code_points_ = 0;
  std::vector<Mark> marks_;
};

/// What BertWords makes of an ASCII character.
struct AsciiRule {
  enum Kind : std::uint8_t {
    kPart,
    kWhite,
    kPunctuation,
    kRemoved
  };  // of a word; between words; a word alone; nothing
  Kind kind = kPart;
  char as = 0;  // in the word
};
std::array<AsciiRule, 128> ascii_rules(const WordPieceSettings& settings);

}  // namespace tailor
