#include <unicode/uchar.h>
#include <unicode/utf8.h>

#include "fit/table.h"

namespace tailor {
namespace {

std::size_t width_of(UChar32 c) {
  if (c < 0) return 1;  // shown as U+FFFD
  if (c < 0x20 || (c >= 0x7F && c < 0xA0)) return 0;
  const int type = u_charType(c);
  if (type == U_NON_SPACING_MARK || type == U_ENCLOSING_MARK || type == U_FORMAT_CHAR) return c == 0xAD ? 1 : 0;
  if (c >= 0x1160 && c <= 0x11FF) return 0;  // Hangul vowels and finals join the syllable before them
  const int east_asian = u_getIntPropertyValue(c, UCHAR_EAST_ASIAN_WIDTH);
  return east_asian == U_EA_WIDE || east_asian == U_EA_FULLWIDTH ? 2 : 1;
}

/// Next code point and its end; bytes that are not UTF-8 count one each.
UChar32 next(std::string_view text, std::size_t& at) {
  UChar32 c = 0;
  std::size_t i = at;
  U8_NEXT(text.data(), i, text.size(), c);
  at = c < 0 ? at + 1 : i;
  return c;
}

}  // namespace

std::size_t display_width(std::string_view utf8) {
  std::size_t width = 0;
  for (std::size_t at = 0; at < utf8.size();) width += width_of(next(utf8, at));
  return width;
}

std::string fit_width(std::string_view utf8, std::size_t width, bool right_aligned) {
  std::string out(utf8);
  std::size_t used = display_width(utf8);
  if (used > width) {
    std::size_t at = 0, end = 0;
    used = 0;
    while (at < utf8.size()) {
      const std::size_t w = width_of(next(utf8, at));
      if (used + w + 1 > width) break;
      used += w;
      end = at;
    }
    out = std::string(utf8.substr(0, end));
    if (width > 0) {
      out += "…";
      ++used;
    }
  }
  const std::string fill(width - used, ' ');
  return right_aligned ? fill + out : out + fill;
}

std::string reflow(std::string_view text, std::size_t width) {
  std::string out;
  for (std::size_t at = 0; at <= text.size();) {
    const std::size_t end = std::min(text.find('\n', at), text.size());
    const std::string_view line = text.substr(at, end - at);
    if (at > 0) out += '\n';
    at = end + 1;
    if (display_width(line) <= width) {
      out += line;
      continue;
    }
    std::size_t begin = std::min(line.find_first_not_of(' '), line.size());
    const std::size_t mark = line.find(' ', begin);
    if (mark != std::string_view::npos && display_width(line.substr(begin, mark - begin)) == 1) begin = mark + 1;
    const std::string indent(display_width(line.substr(0, begin)), ' ');
    out += line.substr(0, begin);
    std::size_t column = indent.size();
    bool first = true;
    while (begin < line.size()) {
      // Blanks in a row belong to the word before them: columns stay columns.
      const std::size_t space = std::min(line.find(' ', begin), line.size());
      const std::size_t next = std::min(line.find_first_not_of(' ', space), line.size());
      const std::size_t columns = display_width(line.substr(begin, space - begin));
      if (!first && column + columns > width) {
        out.erase(out.find_last_not_of(' ') + 1);
        out += '\n' + indent;
        column = indent.size();
      }
      out += line.substr(begin, next - begin);
      column += columns + (next - space);
      begin = next;
      first = false;
    }
  }
  return out;
}

}  // namespace tailor
