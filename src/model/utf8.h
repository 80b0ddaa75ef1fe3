#pragma once
/// Decoding UTF-8 that may be broken.

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace tailor {

/// The code point at `at`, which moves behind it. Bytes that are no UTF-8 (stray or missing continuations, overlong
/// forms, surrogates, above U+10FFFF) give U+FFFD, one for each maximal broken piece as Unicode recommends. `at` <
/// text.size().
std::uint32_t next_code_point(std::string_view text, std::size_t& at);

void append_utf8(std::uint32_t code_point, std::string& out);

bool is_valid_utf8(std::string_view text);
std::string to_valid_utf8(std::string_view text);  // broken pieces become U+FFFD

}  // namespace tailor
