#include "fit/paths.h"

#include <cstdlib>

#include "core/system.h"

namespace tailor {

std::filesystem::path default_models_directory() {
  if (const char* named = std::getenv("TAILOR_MODELS_DIR"); named != nullptr && *named != 0) return named;
  return (program_directory() / TAILOR_DEFAULT_MODELS_DIR).lexically_normal();  // an absolute one stands alone
}

}  // namespace tailor
