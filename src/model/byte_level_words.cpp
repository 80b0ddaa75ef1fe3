#include "model/byte_level_words.h"

#include <array>
#include <cstring>

namespace tailor {
namespace {

enum class Sort : std::uint8_t { kOther, kLetter, kDigit, kSpace };

constexpr std::array<Sort, 256> kSorts = [] {
  std::array<Sort, 256> sorts{};
  for (std::size_t c = 'a'; c <= 'z'; ++c) sorts[c] = sorts[c - 'a' + 'A'] = Sort::kLetter;
  for (std::size_t c = '0'; c <= '9'; ++c) sorts[c] = Sort::kDigit;
  for (const char c : {'\t', '\n', '\v', '\f', '\r', ' '}) sorts[static_cast<unsigned char>(c)] = Sort::kSpace;
  return sorts;
}();

Sort sort_of(char c) {
  return kSorts[static_cast<unsigned char>(c)];
}

std::size_t end_of_run(std::string_view text, std::size_t at, Sort sort) {
  while (at < text.size() && sort_of(text[at]) == sort) ++at;
  return at;
}

/// Length of 's, 't, 're, 've, 'm, 'll or 'd at `at`, where an apostrophe stands; 0: none of them.
std::size_t contraction(std::string_view text, std::size_t at) {
  const std::string_view rest = text.substr(at + 1, 2);
  if (rest.empty()) return 0;
  if (std::strchr("stmd", rest[0]) != nullptr && rest[0] != '\0') return 2;
  return rest == "re" || rest == "ve" || rest == "ll" ? 3 : 0;
}

bool is_ascii(char c) {
  return static_cast<unsigned char>(c) < 0x80;
}

/// Whether a word ends before `at` by every rule: a blank between ASCII letters.
bool is_border(std::string_view text, std::size_t at) {
  return at > 0 && at + 1 < text.size() && text[at] == ' ' && sort_of(text[at - 1]) == Sort::kLetter &&
         sort_of(text[at + 1]) == Sort::kLetter;
}

std::size_t first_foreign(std::string_view text, std::size_t at) {
  for (; at + 8 <= text.size(); at += 8) {
    std::uint64_t bytes;
    std::memcpy(&bytes, text.data() + at, sizeof bytes);
    if ((bytes & 0x8080808080808080ULL) != 0) break;
  }
  while (at < text.size() && is_ascii(text[at])) ++at;
  return at;
}

}  // namespace

WordRule word_rule(std::string_view pre_tokenizer) {
  for (const std::string_view name : {"smollm", "starcoder", "refact"}) {
    if (pre_tokenizer == name) return WordRule::kGpt2NoDigit;
  }
  for (const std::string_view name : {"gpt-2", "mpt", "olmo", "roberta-bpe"}) {
    if (pre_tokenizer == name) return WordRule::kGpt2;
  }
  return WordRule::kUnknown;
}

std::size_t word_end(WordRule rule, std::string_view text, std::size_t at) {
  const bool digits_apart = rule == WordRule::kGpt2NoDigit;  // what lies between digits is split as if it were a text
  const auto digit = [&](std::size_t i) { return digits_apart && i < text.size() && sort_of(text[i]) == Sort::kDigit; };
  if (digit(at)) return at + 1;
  if (text[at] == '\'') {
    if (const std::size_t length = contraction(text, at); length > 0) return at + length;
  }
  const bool leads = text[at] == ' ' && at + 1 < text.size() && !digit(at + 1);
  const std::size_t first = leads ? at + 1 : at;
  const Sort sort = sort_of(text[first]);
  if (sort != Sort::kSpace) return end_of_run(text, first + 1, sort);
  const std::size_t end = end_of_run(text, at, Sort::kSpace);
  const bool followed = end < text.size() && !digit(end);
  return followed && end - at > 1 ? end - 1 : end;  // the last one goes with what follows
}

TextPiece next_piece(std::string_view text, std::size_t at) {
  const std::size_t foreign = first_foreign(text, at);
  if (foreign == text.size()) return {foreign, true};
  for (std::size_t border = foreign; border > at + 1; --border) {
    if (is_border(text, border - 1)) return {border - 1, true};
  }
  std::size_t end = foreign + 1;
  while (end < text.size() && !is_border(text, end)) ++end;
  return {end, false};
}

}  // namespace tailor
