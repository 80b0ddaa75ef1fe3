#pragma once
/// Cuts a text into the terms that scikit-learn's vectorizers count, code point for code point.
///
/// words: runs of two or more word characters (the default token_pattern, (?u)\b\w\w+\b), then runs of n of them joined
///        by one space. A word character is what Python calls alphanumeric (category L or a numeric value) or "_"; a
///        combining mark is not.
/// words and marks: the same, with single word characters and every other sign that is no white space as words too
///        (token_pattern (?u)\w+|[^\w\s]).
/// characters: windows of n code points inside each word padded by a space on both sides (analyzer="char_wb"); words
///        are what white space separates.
/// text/unicode.h's words() follows Unicode's own word boundaries instead; it is not this rule.

#include <cstddef>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace tailor {

struct TermOptions {
  enum class Kind { kWords, kWordsAndMarks, kCharacters };
  Kind kind = Kind::kWords;
  int min_n = 1;          // >= 1
  int max_n = 1;          // >= min_n
  bool lowercase = true;  // Python's str.lower(): full mapping, final sigma
};

/// Keeps its buffers between texts: one per thread.
class TermCutter {
 public:
  explicit TermCutter(TermOptions options) : options_(options) {}
  /// Calls use(term) for every occurrence; the view is valid during the call. Bytes that are not UTF-8 count as U+FFFD.
  void cut(std::string_view text, const std::function<void(std::string_view)>& use);

 private:
  void words(const std::function<void(std::string_view)>& use);
  void characters(const std::function<void(std::string_view)>& use);

  TermOptions options_;
  std::string text_;    // prepared text
  std::string joined_;  // words with one space between, or one padded word
  std::vector<std::size_t> starts_;
};

}  // namespace tailor
