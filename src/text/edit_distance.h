#pragma once
/// "Did you mean ...?": how far apart two names are.

#include <cstddef>
#include <span>
#include <string>
#include <string_view>

namespace tailor {

/// Fewest insertions, deletions, substitutions of one byte and swaps of two neighbours that make `b` of `a` (optimal
/// string alignment), or `limit` + 1 as soon as it is known to be more. Cost O(|a| * |b|).
std::size_t edit_distance(std::string_view a, std::string_view b, std::size_t limit);

/// The candidate nearest to `name` (compared in lower case), the first of equals; "" where none is within a third of
/// the name's length, at least 2.
std::string nearest_name(std::string_view name, std::span<const std::string> candidates);

}  // namespace tailor
