#include "text/word_spans.h"

#include <unicode/uchar.h>
#include <unicode/utf8.h>

namespace tailor {
namespace {

enum class Sort : std::uint8_t { kBlank, kWord, kAlone };

Sort sort_of(UChar32 c) {
  if (c < 0) return Sort::kAlone;
  if (u_isUWhiteSpace(c) != 0) return Sort::kBlank;
  if (u_hasBinaryProperty(c, UCHAR_IDEOGRAPHIC) != 0) return Sort::kAlone;
  const auto mask = U_MASK(u_charType(c));
  return (mask & (U_GC_L_MASK | U_GC_M_MASK | U_GC_N_MASK)) != 0 ? Sort::kWord : Sort::kAlone;
}

}  // namespace

std::vector<WordSpan> word_spans(std::string_view utf8) {
  std::vector<WordSpan> words;
  bool open = false;  // the last word may grow
  const auto* bytes = reinterpret_cast<const std::uint8_t*>(utf8.data());
  for (std::size_t at = 0; at < utf8.size();) {
    const auto begin = static_cast<std::uint32_t>(at);
    UChar32 c = 0;
    U8_NEXT(bytes, at, utf8.size(), c);
    const auto end = static_cast<std::uint32_t>(at);
    const Sort sort = sort_of(c);
    if (sort == Sort::kWord && open)
      words.back().end = end;
    else if (sort != Sort::kBlank)
      words.push_back({begin, end});
    open = sort == Sort::kWord;
  }
  return words;
}

}  // namespace tailor
