#include "text/unicode.h"

#include <unicode/brkiter.h>
#include <unicode/bytestream.h>
#include <unicode/normalizer2.h>
#include <unicode/uchar.h>
#include <unicode/utext.h>
#include <unicode/utf8.h>

#include <array>
#include <cstdint>
#include <cstring>
#include <memory>
#include <utility>

#include "core/result.h"

namespace tailor {
namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";  // U+FFFD

/// Length of the well-formed UTF-8 sequence at the start of `s`, 0 where there is none. Table 3-7 of the standard.
std::size_t sequence_length(std::string_view s) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(s[i]); };
  const unsigned char first = byte(0);
  if (first < 0x80) return 1;
  const auto continues = [&](std::size_t i, unsigned low = 0x80, unsigned high = 0xBF) {
    return i < s.size() && byte(i) >= low && byte(i) <= high;
  };
  if (first >= 0xC2 && first <= 0xDF) return continues(1) ? 2 : 0;
  if (first >= 0xE0 && first <= 0xEF) {
    const unsigned low = first == 0xE0 ? 0xA0 : 0x80;
    const unsigned high = first == 0xED ? 0x9F : 0xBF;
    return continues(1, low, high) && continues(2) ? 3 : 0;
  }
  if (first >= 0xF0 && first <= 0xF4) {
    const unsigned low = first == 0xF0 ? 0x90 : 0x80;
    const unsigned high = first == 0xF4 ? 0x8F : 0xBF;
    return continues(1, low, high) && continues(2) && continues(3) ? 4 : 0;
  }
  return 0;
}

/// Bytes of ASCII at the start.
std::size_t ascii_prefix(std::string_view s) {
  std::size_t i = 0;
  for (; i + 8 <= s.size(); i += 8) {
    std::uint64_t block = 0;
    std::memcpy(&block, s.data() + i, 8);
    if ((block & 0x8080808080808080ULL) != 0) break;
  }
  while (i < s.size() && static_cast<unsigned char>(s[i]) < 0x80) ++i;
  return i;
}

UChar32 next_code_point(std::string_view s, std::size_t& i) {
  UChar32 c = 0;
  const auto* bytes = reinterpret_cast<const std::uint8_t*>(s.data());
  U8_NEXT(bytes, i, s.size(), c);  // negative where malformed, and moves on by the malformed part
  return c;
}

char ascii_lower(char c) {
  return c >= 'A' && c <= 'Z' ? static_cast<char>(c + ('a' - 'A')) : c;
}
bool ascii_letter(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}
bool ascii_digit(char c) {
  return c >= '0' && c <= '9';
}

bool is_space(UChar32 c) {
  return u_isUWhiteSpace(c) != 0 || c == 0xFEFF;
}

std::string normalise(const icu::Normalizer2* (*instance)(UErrorCode&), std::string_view utf8) {
  UErrorCode status = U_ZERO_ERROR;
  const icu::Normalizer2* normalizer = instance(status);
  std::string out;
  if (U_SUCCESS(status)) {
    out.reserve(utf8.size());
    icu::StringByteSink<std::string> sink(&out);
    normalizer->normalizeUTF8(0, icu::StringPiece(utf8.data(), static_cast<std::int32_t>(utf8.size())), sink, nullptr,
                              status);
  }
  if (U_FAILURE(status)) {
    throw Exception({ErrorCode::kUnavailable, std::string("ICU cannot normalise text: ") + u_errorName(status),
                     "check that ICU's data is installed (libicu)"});
  }
  return out;
}

/// Straight quote or plain dash for the typographic ones; 0 for all else.
char plain_form(UChar32 c) {
  if (c == 0x2018 || c == 0x2019 || c == 0x201B || c == 0x02BC) return '\'';
  if (c == 0x201C || c == 0x201D || c == 0x201F) return '"';
  if ((c >= 0x2010 && c <= 0x2015) || c == 0x2212) return '-';
  return 0;
}

/// Calls use(code_point, bytes) for each character.
template <typename Use>
void for_each_code_point(std::string_view utf8, Use use) {
  for (std::size_t i = 0; i < utf8.size();) {
    const std::size_t begin = i;
    const UChar32 c = next_code_point(utf8, i);
    use(c, utf8.substr(begin, i - begin));
  }
}

/// Words of lower-case ASCII by the rules of annex 29 that concern ASCII (WB5 to WB13b), as ICU tailors them.
void ascii_words(std::string_view s, std::vector<std::string>& out) {
  const auto part_of_word = [](char c) { return ascii_letter(c) || ascii_digit(c) || c == '_'; };
  for (std::size_t i = 0; i < s.size();) {
    if (!part_of_word(s[i])) {
      ++i;
      continue;
    }
    const std::size_t begin = i;
    bool has_content = false;
    for (; i < s.size(); ++i) {
      const char c = s[i];
      if (part_of_word(c)) {
        has_content = has_content || c != '_';
        continue;
      }
      if (i + 1 == s.size()) break;
      const bool between_letters = ascii_letter(s[i - 1]) && ascii_letter(s[i + 1]);
      const bool between_digits = ascii_digit(s[i - 1]) && ascii_digit(s[i + 1]);
      const bool joins =
          (c == '.' || c == '\'') ? (between_letters || between_digits) : ((c == ',' || c == ';') && between_digits);
      if (!joins) break;
    }
    if (has_content) out.emplace_back(s.substr(begin, i - begin));
  }
}

void unicode_words(std::string folded, std::vector<std::string>& out) {
  // ICU's releases disagree on whether these two may stand inside words.
  for (char& c : folded) {
    if (c == '@' || c == ':') c = ' ';
  }
  // Making an iterator costs far more than using one, and one may not be shared between threads.
  thread_local std::unique_ptr<icu::BreakIterator> iterator;
  UErrorCode status = U_ZERO_ERROR;
  if (!iterator) iterator.reset(icu::BreakIterator::createWordInstance(icu::Locale::getRoot(), status));
  UText view = UTEXT_INITIALIZER;
  utext_openUTF8(&view, folded.data(), static_cast<std::int64_t>(folded.size()), &status);
  if (U_SUCCESS(status)) iterator->setText(&view, status);
  if (U_FAILURE(status)) {
    iterator.reset();
    utext_close(&view);
    throw Exception({ErrorCode::kUnavailable, std::string("ICU cannot split text into words: ") + u_errorName(status),
                     "check that ICU's data is installed (libicu)"});
  }
  std::int32_t begin = iterator->first();
  for (std::int32_t end = iterator->next(); end != icu::BreakIterator::DONE; begin = end, end = iterator->next()) {
    const std::string_view segment =
        std::string_view(folded).substr(static_cast<std::size_t>(begin), static_cast<std::size_t>(end - begin));
    // Not the iterator's rule status, which calls some runs of underscores words.
    bool keep = false;
    for_each_code_point(segment, [&](UChar32 c, std::string_view) {
      keep = keep || u_isalnum(c) != 0 || u_hasBinaryProperty(c, UCHAR_EXTENDED_PICTOGRAPHIC) != 0;
    });
    if (keep) out.emplace_back(segment);
  }
  utext_close(&view);
}

}  // namespace

std::size_t find_invalid_utf8(std::string_view bytes) {
  std::size_t i = 0;
  while (true) {
    i += ascii_prefix(bytes.substr(i));
    if (i == bytes.size()) return std::string_view::npos;
    const std::size_t length = sequence_length(bytes.substr(i));
    if (length == 0) return i;
    i += length;
  }
}

bool is_ascii(std::string_view bytes) {
  return ascii_prefix(bytes) == bytes.size();
}

std::size_t count_code_points(std::string_view utf8) {
  std::size_t count = 0;
  for (const char c : utf8) count += (static_cast<unsigned char>(c) & 0xC0) != 0x80;
  return count;
}

std::string_view trim(std::string_view utf8) {
  std::size_t begin = 0;
  while (begin < utf8.size()) {
    std::size_t next = begin;
    if (!is_space(next_code_point(utf8, next))) break;
    begin = next;
  }
  std::size_t end = utf8.size();
  while (end > begin) {
    std::size_t previous = end - 1;
    while (previous > begin && (static_cast<unsigned char>(utf8[previous]) & 0xC0) == 0x80) --previous;
    std::size_t i = previous;
    if (!is_space(next_code_point(utf8, i))) break;
    end = previous;
  }
  return utf8.substr(begin, end - begin);
}

bool is_blank(std::string_view utf8) {
  for (std::size_t i = 0; i < utf8.size();) {
    const UChar32 c = next_code_point(utf8, i);
    const bool invisible =
        is_space(c) || u_iscntrl(c) != 0 || u_hasBinaryProperty(c, UCHAR_DEFAULT_IGNORABLE_CODE_POINT) != 0;
    if (!invisible) return false;
  }
  return true;
}

std::string nfc(std::string_view utf8) {
  if (is_ascii(utf8)) return std::string(utf8);
  return normalise(&icu::Normalizer2::getNFCInstance, utf8);
}

std::string fold(std::string_view utf8) {
  if (is_ascii(utf8)) {
    std::string out(utf8);
    for (char& c : out) c = ascii_lower(c);
    return out;
  }
  const std::string folded = normalise(&icu::Normalizer2::getNFKCCasefoldInstance, utf8);
  std::string out;
  out.reserve(folded.size());
  for_each_code_point(folded, [&](UChar32 c, std::string_view bytes) {
    if (const char plain = plain_form(c))
      out += plain;
    else
      out += bytes;
  });
  return out;
}

std::string duplicate_key(std::string_view utf8) {
  const std::string folded = fold(utf8);
  std::string out;
  out.reserve(folded.size());
  bool gap = false;
  for_each_code_point(folded, [&](UChar32 c, std::string_view bytes) {
    if (is_space(c)) {
      gap = true;
      return;
    }
    if (gap && !out.empty()) out += ' ';
    gap = false;
    out += bytes;
  });
  return out;
}

std::string skeleton(std::string_view utf8) {
  const std::string folded = fold(utf8);
  std::string out;
  out.reserve(folded.size());
  bool gap = false;
  const auto put = [&](std::string_view bytes) {
    if (gap && !out.empty()) out += ' ';
    gap = false;
    out += bytes;
  };
  if (is_ascii(folded)) {
    for (const char& c : folded) {
      if (ascii_letter(c) || ascii_digit(c))
        put({&c, 1});
      else
        gap = true;
    }
  } else {
    for_each_code_point(folded, [&](UChar32 c, std::string_view bytes) {
      if (u_isalnum(c) != 0 || (U_GET_GC_MASK(c) & U_GC_M_MASK) != 0)
        put(bytes);
      else
        gap = true;
    });
  }
  return out.empty() ? duplicate_key(utf8) : out;
}

std::vector<std::string> words(std::string_view utf8) {
  std::vector<std::string> out;
  std::string folded = fold(utf8);
  if (is_ascii(folded))
    ascii_words(folded, out);
  else
    unicode_words(std::move(folded), out);
  return out;
}

std::string one_line(std::string_view bytes) {
  std::string out;
  out.reserve(bytes.size());
  bool gap = false;
  for_each_code_point(bytes, [&](UChar32 c, std::string_view raw) {
    const bool override_mark = (c >= 0x202A && c <= 0x202E) || (c >= 0x2066 && c <= 0x2069);
    if (c >= 0 && (is_space(c) || u_iscntrl(c) != 0 || override_mark)) {
      gap = true;
      return;
    }
    if (gap && !out.empty()) out += ' ';
    gap = false;
    out += c < 0 ? kReplacement : raw;
  });
  return out;
}

std::string shorten(std::string_view bytes, std::size_t max_code_points) {
  std::string line =
      one_line(bytes.substr(0, std::size_t{64} * (max_code_points + 4)));  // enough, and never ten megabytes
  const bool more = count_code_points(line) > max_code_points || bytes.size() > std::size_t{64} * (max_code_points + 4);
  if (!more) return line;
  std::size_t kept = 0;
  std::size_t end = 0;
  while (end < line.size() && kept + 1 < max_code_points) {
    next_code_point(line, end);
    ++kept;
  }
  line.resize(end);
  while (!line.empty() && line.back() == ' ') line.pop_back();
  return line + "\xE2\x80\xA6";
}

std::string escape_html(std::string_view bytes) {
  std::string out;
  out.reserve(bytes.size() + bytes.size() / 8);
  for_each_code_point(bytes, [&](UChar32 c, std::string_view raw) {
    switch (c) {
      case '&':
        out += "&amp;";
        return;
      case '<':
        out += "&lt;";
        return;
      case '>':
        out += "&gt;";
        return;
      case '"':
        out += "&quot;";
        return;
      case '\'':
        out += "&#39;";
        return;
      default:
        break;
    }
    const bool forbidden = c < 0 || (c < 0x20 && c != '\t' && c != '\n' && c != '\r') || (c >= 0x7F && c <= 0x9F);
    out += forbidden ? kReplacement : raw;
  });
  return out;
}

}  // namespace tailor
