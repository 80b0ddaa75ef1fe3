#pragma once
/// Lower case and words between blanks, as plain scripts compare texts. Takes UTF-8; bytes that are none stay as they
/// are.

#include <string>
#include <string_view>
#include <vector>

namespace tailor {

/// Each code point's simple lower case; nothing else changes.
std::string lower_case(std::string_view utf8);
/// The runs between white space (Unicode White_Space).
std::vector<std::string> split_blanks(std::string_view utf8);

}  // namespace tailor
