#pragma once
/// The tables of a store. Layout n is what the first n scripts made; scripts only ever get appended.

#include <span>
#include <string_view>

namespace tailor {

std::span<const std::string_view> store_migrations();

}  // namespace tailor
