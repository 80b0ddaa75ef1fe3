#pragma once
/// Text as people write it: checking UTF-8, folding spellings that mean the same, words, and safe display.
/// All functions take valid UTF-8 unless they say otherwise, keep no state between calls and are safe to call from
/// several threads. ASCII takes a fast path that gives the same result as ICU's (tested against it).

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace tailor {

/// Offset of the first byte that does not belong to well-formed UTF-8 (Unicode 15.0, table 3-7: no overlong forms, no
/// surrogates, nothing above U+10FFFF); npos where all bytes do. A character cut short is reported at its first byte.
std::size_t find_invalid_utf8(std::string_view bytes);

bool is_ascii(std::string_view bytes);
std::size_t count_code_points(std::string_view utf8);

/// Without white space (Unicode White_Space, and U+FEFF) at both ends.
std::string_view trim(std::string_view utf8);
bool is_blank(
    std::string_view utf8);  // nothing but white space and characters that have no look (zero-width, controls)

/// Canonical composition (NFC), Unicode standard annex 15.
std::string nfc(std::string_view utf8);

/// Compatibility composition with full case folding (ICU's NFKC_Casefold, which also drops zero-width characters and
/// soft hyphens); curly quotes become straight and all dashes '-', since phones and office programs type them unasked.
std::string fold(std::string_view utf8);

/// fold() with every run of white space as one space and none at the ends: two texts with the same key are the same
/// text to a reader ("exact duplicates").
std::string duplicate_key(std::string_view utf8);

/// fold() reduced to letters, marks and digits, every run of anything else as one space. Where nothing is left ("?!",
/// an emoji alone) it is duplicate_key(). Near duplicates are measured on it.
std::string skeleton(std::string_view utf8);

/// The words of fold(utf8) by Unicode standard annex 29 as ICU applies it (dictionaries for Chinese, Japanese, Thai,
/// ...): segments with a letter or digit, and pictographs (emoji). "Can't pay £3.50 on two-bed" gives can't, pay, 3.50,
/// on, two, bed.
std::vector<std::string> words(std::string_view utf8);

/// For one line on a terminal: control characters, line and paragraph separators and bidirectional overrides become a
/// space, runs of white space one space, bytes that are not UTF-8 U+FFFD. Takes any bytes.
std::string one_line(std::string_view bytes);

/// one_line() of at most `max_code_points` (>= 1), the last of them U+2026 (...) where text was cut.
std::string shorten(std::string_view bytes, std::size_t max_code_points);

/// & < > " ' as entities; control characters that HTML forbids, and bytes that are not UTF-8, as U+FFFD. Takes any
/// bytes.
std::string escape_html(std::string_view bytes);

}  // namespace tailor
