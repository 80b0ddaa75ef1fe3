#include "learn/terms.h"

#include <unicode/ucasemap.h>
#include <unicode/uchar.h>
#include <unicode/utf8.h>

#include <algorithm>
#include <cstdint>

#include "core/result.h"
#include "text/unicode.h"

namespace tailor {
namespace {

bool is_word_character(UChar32 c) {
  if (c < 0x80) return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
  return u_isalpha(c) || u_getIntPropertyValue(c, UCHAR_NUMERIC_TYPE) != U_NT_NONE;
}

// Python's str.isspace(): bidirectional WS, B or S, or category Zs.
bool is_space(UChar32 c) {
  return (c >= 0x09 && c <= 0x0D) || (c >= 0x1C && c <= 0x20) || c == 0x85 || c == 0xA0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

void append_valid(std::string_view text, std::string& out) {
  if (find_invalid_utf8(text) == std::string_view::npos) {
    out.append(text);
    return;
  }
  const auto* bytes = reinterpret_cast<const std::uint8_t*>(text.data());
  const auto size = static_cast<std::int64_t>(text.size());
  for (std::int64_t i = 0; i < size;) {
    const std::int64_t begin = i;
    UChar32 c = 0;
    U8_NEXT(bytes, i, size, c);
    if (c < 0) {
      out.append("\xEF\xBF\xBD");
    } else {
      out.append(text.substr(static_cast<std::size_t>(begin), static_cast<std::size_t>(i - begin)));
    }
  }
}

void lowercase(std::string& text) {
  if (is_ascii(text)) {
    for (char& c : text) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c;
    return;
  }
  UErrorCode status = U_ZERO_ERROR;
  UCaseMap* map = ucasemap_open("", 0, &status);
  std::string out(text.size() + 16, '\0');
  for (int attempt = 0; attempt < 2 && U_SUCCESS(status); ++attempt) {
    const std::int32_t needed = ucasemap_utf8ToLower(map, out.data(), static_cast<std::int32_t>(out.size()),
                                                     text.data(), static_cast<std::int32_t>(text.size()), &status);
    const bool again = status == U_BUFFER_OVERFLOW_ERROR;
    out.resize(static_cast<std::size_t>(std::max(needed, 0)));
    if (!again) break;
    status = U_ZERO_ERROR;
  }
  ucasemap_close(map);
  if (U_FAILURE(status)) {
    throw Exception({ErrorCode::kUnavailable, std::string("ICU cannot lower-case text: ").append(u_errorName(status)),
                     "check that ICU's data is installed (libicu)"});
  }
  text.swap(out);
}

}  // namespace

void TermCutter::cut(std::string_view text, const std::function<void(std::string_view)>& use) {
  text_.clear();
  append_valid(text, text_);
  if (options_.lowercase) lowercase(text_);
  options_.kind == TermOptions::Kind::kCharacters ? characters(use) : words(use);
}

void TermCutter::words(const std::function<void(std::string_view)>& use) {
  joined_.clear();
  starts_.clear();  // of each word, then one past the space after the last
  const auto* bytes = reinterpret_cast<const std::uint8_t*>(text_.data());
  const auto size = static_cast<std::int64_t>(text_.size());
  const auto add = [&](std::int64_t from, std::int64_t to) {
    starts_.push_back(joined_.size());
    joined_.append(text_, static_cast<std::size_t>(from), static_cast<std::size_t>(to - from)).push_back(' ');
  };
  const bool marks = options_.kind == TermOptions::Kind::kWordsAndMarks;
  const int shortest = marks ? 1 : 2;
  std::int64_t begin = 0;
  int length = 0;
  for (std::int64_t i = 0; i <= size;) {
    const std::int64_t here = i;
    UChar32 c = ' ';
    if (i < size) {
      U8_NEXT(bytes, i, size, c);
    } else {
      ++i;
    }
    if (is_word_character(c)) {
      if (length++ == 0) begin = here;
      continue;
    }
    if (length >= shortest) add(begin, here);
    length = 0;
    if (marks && !is_space(c)) add(here, i);
  }
  starts_.push_back(joined_.size());
  const std::size_t count = starts_.size() - 1;
  const std::string_view all = joined_;
  for (auto n = static_cast<std::size_t>(options_.min_n);
       n <= std::min(static_cast<std::size_t>(options_.max_n), count); ++n) {
    for (std::size_t i = 0; i + n <= count; ++i) use(all.substr(starts_[i], starts_[i + n] - 1 - starts_[i]));
  }
}

void TermCutter::characters(const std::function<void(std::string_view)>& use) {
  const auto* bytes = reinterpret_cast<const std::uint8_t*>(text_.data());
  const auto size = static_cast<std::int64_t>(text_.size());
  const auto flush = [&] {
    if (starts_.size() < 2) return;
    starts_.push_back(joined_.size());
    joined_.push_back(' ');
    starts_.push_back(joined_.size());
    const std::size_t length = starts_.size() - 1;  // code points with the two spaces
    const std::string_view word = joined_;
    for (auto n = static_cast<std::size_t>(options_.min_n); n <= static_cast<std::size_t>(options_.max_n); ++n) {
      if (n >= length) {  // a word shorter than the window counts once
        use(word);
        break;
      }
      for (std::size_t i = 0; i + n <= length; ++i) use(word.substr(starts_[i], starts_[i + n] - starts_[i]));
    }
  };
  const auto restart = [&] {
    joined_ = " ";
    starts_ = {0};
  };
  restart();
  for (std::int64_t i = 0; i < size;) {
    const std::int64_t here = i;
    UChar32 c = 0;
    U8_NEXT(bytes, i, size, c);
    if (is_space(c)) {
      flush();
      restart();
      continue;
    }
    starts_.push_back(joined_.size());
    joined_.append(text_, static_cast<std::size_t>(here), static_cast<std::size_t>(i - here));
  }
  flush();
}

}  // namespace tailor
