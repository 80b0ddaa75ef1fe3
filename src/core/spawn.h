#pragma once
/// Starting a child process; what process.h and companion.h have in common.

#include <sys/types.h>

#include "core/process.h"
#include "core/result.h"

namespace tailor {

/// The child reads `input` (-1: nothing) and writes `output`; both stay open here. It leads a process group of its own
/// and dies if we die. Descriptors of ours that are not O_CLOEXEC go on in it.
Result<pid_t> spawn(const ProcessOptions& options, int input, int output);

}  // namespace tailor
