#include "fit/tune_process.h"

#include <unistd.h>

#include <cstdlib>

#include "core/system.h"

namespace tailor {

std::filesystem::path find_tune_program() {
  std::filesystem::path program = program_directory() / "tailor-tune";
  if (const char* named = std::getenv("TAILOR_TUNE"); named != nullptr) program = named;
  return ::access(program.c_str(), X_OK) == 0 ? program : std::filesystem::path();
}

}  // namespace tailor
