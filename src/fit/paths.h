#pragma once
/// Where models are.

#include <filesystem>

namespace tailor {

/// $TAILOR_MODELS_DIR, or where set-up put them when this program was built.
std::filesystem::path default_models_directory();

}  // namespace tailor
