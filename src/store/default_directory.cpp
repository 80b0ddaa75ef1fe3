#include "store/default_directory.h"

#include <cstdlib>

namespace tailor {
namespace {

std::filesystem::path variable(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

}  // namespace

std::filesystem::path default_store_directory() {
  if (const auto named = variable("TAILOR_DATA"); !named.empty()) return named;
  if (const auto data = variable("XDG_DATA_HOME"); data.is_absolute()) return data / "tailor";
  if (const auto home = variable("HOME"); !home.empty()) return home / ".local" / "share" / "tailor";
  return {};
}

}  // namespace tailor
