#pragma once
/// Where a store is where nobody says so.

#include <filesystem>

namespace tailor {

/// $TAILOR_DATA, $XDG_DATA_HOME/tailor or ~/.local/share/tailor; empty: none of the three is known.
std::filesystem::path default_store_directory();

}  // namespace tailor
