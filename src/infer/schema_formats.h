#pragma once
/// The values of JSON Schema's "format" that are enforced, as regular expressions (infer/regex_grammar.h).

#include <optional>
#include <string_view>

namespace tailor {

/// None: this format is an annotation. The expression may match less than the format: no 29 February, no leap second,
/// no quoted names in addresses, no shortened or mixed IPv6.
std::optional<std::string_view> format_pattern(std::string_view format);

}  // namespace tailor
