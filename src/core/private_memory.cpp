#include "core/private_memory.h"

#include <fmt/format.h>
#include <sys/prctl.h>
#include <sys/resource.h>

#include <cerrno>
#include <cstring>

namespace tailor {

Status keep_memory_private() {
  // The limit alone is not heeded where cores are piped into a program; the flag alone does not hold for children.
  const rlimit none{0, 0};
  if (::setrlimit(RLIMIT_CORE, &none) != 0 || ::prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0)
    return Error{ErrorCode::kUnavailable, fmt::format("core dumps cannot be turned off: {}", std::strerror(errno)), ""};
  return {};
}

}  // namespace tailor
