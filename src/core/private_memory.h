#pragma once
/// What is in memory stays there: prompts, answers and keys.

#include "core/result.h"

namespace tailor {

/// From now on no core file is written of this process or of what it starts, and no debugger of the same user may
/// attach to this process; it cannot be undone. kUnavailable where the system refuses. Process-wide: for programs, not
/// libraries.
Status keep_memory_private();

}  // namespace tailor
