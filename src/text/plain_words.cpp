#include "text/plain_words.h"

#include <unicode/uchar.h>
#include <unicode/utf8.h>

namespace tailor {
namespace {

/// Negative where malformed; `at` moves on.
UChar32 next(std::string_view s, std::size_t& at) {
  UChar32 c = 0;
  const auto* bytes = reinterpret_cast<const std::uint8_t*>(s.data());
  U8_NEXT(bytes, at, s.size(), c);
  return c;
}

}  // namespace

std::string lower_case(std::string_view utf8) {
  std::string out;
  for (std::size_t i = 0; i < utf8.size();) {
    const std::size_t begin = i;
    const UChar32 c = next(utf8, i);
    const UChar32 low = c < 0 ? c : u_tolower(c);
    if (low == c) {
      out.append(utf8, begin, i - begin);
      continue;
    }
    std::uint8_t bytes[U8_MAX_LENGTH];
    std::int32_t length = 0;
    U8_APPEND_UNSAFE(bytes, length, low);
    out.append(reinterpret_cast<const char*>(bytes), static_cast<std::size_t>(length));
  }
  return out;
}

std::vector<std::string> split_blanks(std::string_view utf8) {
  std::vector<std::string> out;
  bool open = false;
  for (std::size_t i = 0; i < utf8.size();) {
    const std::size_t begin = i;
    const UChar32 c = next(utf8, i);
    const bool blank = c >= 0 && u_isUWhiteSpace(c) != 0;
    if (!blank && !open) out.emplace_back();
    if (!blank) out.back().append(utf8, begin, i - begin);
    open = !blank;
  }
  return out;
}

}  // namespace tailor
