#pragma once
/// Where a JSON text is broken, for parsers that do not tell.

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

namespace tailor {

struct JsonFlaw {
  std::size_t offset = 0;  // of the first byte that is wrong; the text's size where it ends too early
  std::string reason;      // "syntax error while parsing value - ..."; may hold a piece of the text
};

/// None where the text is valid, or where only a number is out of range. Builds nothing; takes any bytes and depth.
std::optional<JsonFlaw> find_json_flaw(std::string_view text);

}  // namespace tailor
