#pragma once
/// Places in a text, counted as the one who asks counts its characters.

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

namespace tailor {

enum class OffsetUnit : std::uint8_t {
  kCodePoints,  // Python's str
  kUtf16,       // JavaScript, Java, C#: characters beyond U+FFFF are two
  kUtf8,        // bytes: C, Go, Rust
};

inline constexpr std::string_view kOffsetUnits[] = {"codepoints", "utf16", "utf8"};  // by OffsetUnit
std::optional<OffsetUnit> offset_unit(std::string_view name);
constexpr std::string_view name_of(OffsetUnit unit) {
  return kOffsetUnits[static_cast<std::size_t>(unit)];
}

/// Counts as it goes, so that places that rise cost one pass over the text. `utf8` must outlive it.
class OffsetCounter {
 public:
  OffsetCounter(std::string_view utf8, OffsetUnit unit) : text_(utf8), unit_(unit) {}
  /// Units before byte `byte`, which begins a character or is the text's end.
  std::size_t at(std::size_t byte);

 private:
  std::string_view text_;
  OffsetUnit unit_;
  std::size_t byte_ = 0, units_ = 0;
};

}  // namespace tailor
