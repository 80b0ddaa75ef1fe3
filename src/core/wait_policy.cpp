#include "core/wait_policy.h"

#include <unistd.h>

#include <cstdlib>
#include <string_view>

namespace tailor {

void restart_with_short_waits(char** argv) {
  const char* const policy = std::getenv("OMP_WAIT_POLICY");
  if (std::getenv("GOMP_SPINCOUNT") != nullptr || (policy != nullptr && std::string_view(policy) != "passive")) return;
  setenv("OMP_WAIT_POLICY", "passive", 1);
  setenv("GOMP_SPINCOUNT", "1000", 1);  // some ten microseconds
  execv("/proc/self/exe", argv);
}

}  // namespace tailor
