#pragma once
/// Where the words of a text stand, for answers about words.

#include <cstdint>
#include <string_view>
#include <vector>

namespace tailor {

struct WordSpan {
  std::uint32_t begin = 0, end = 0;  // bytes of the text
  bool operator==(const WordSpan&) const = default;
};

/// Runs of letters, marks and digits; any other character that is not white space is a word of its own, as BERT splits
/// texts before it looks for word pieces. "It's 3.50" gives It ' s 3 . 50. Chinese, Japanese kanji: one character each.
/// Bytes that are not UTF-8 are characters of their own.
std::vector<WordSpan> word_spans(std::string_view utf8);

}  // namespace tailor
