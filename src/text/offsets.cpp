#include "text/offsets.h"

#include <algorithm>
#include <iterator>

namespace tailor {

std::optional<OffsetUnit> offset_unit(std::string_view name) {
  const auto* found = std::find(std::begin(kOffsetUnits), std::end(kOffsetUnits), name);
  if (found == std::end(kOffsetUnits)) return std::nullopt;
  return static_cast<OffsetUnit>(found - std::begin(kOffsetUnits));
}

std::size_t OffsetCounter::at(std::size_t byte) {
  if (unit_ == OffsetUnit::kUtf8) return byte;
  if (byte < byte_) byte_ = units_ = 0;
  for (; byte_ < std::min(byte, text_.size()); ++byte_) {
    const auto c = static_cast<unsigned char>(text_[byte_]);
    if ((c & 0xC0) == 0x80) continue;  // goes on with a character
    units_ += unit_ == OffsetUnit::kUtf16 && c >= 0xF0 ? 2 : 1;
  }
  return units_;
}

}  // namespace tailor
