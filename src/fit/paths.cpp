#include "fit/paths.h"

#include <cstdlib>

namespace tailor {

std::filesystem::path default_models_directory() {
  if (const char* named = std::getenv("TAILOR_MODELS_DIR"); named != nullptr && *named != 0) return named;
  return TAILOR_DEFAULT_MODELS_DIR;
}

}  // namespace tailor
