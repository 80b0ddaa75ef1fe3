#pragma once
/// Child processes with their output as lines and their use of memory and processor as the system counted it.

#include <sys/types.h>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "core/cancel.h"
#include "core/result.h"

namespace tailor {

struct ProcessOptions {
  std::vector<std::string> command;                              // command[0] is a path; no shell
  std::vector<std::pair<std::string, std::string>> environment;  // added to ours
  std::filesystem::path stderr_file;                             // empty: ours
  std::uint64_t memory_limit_bytes = 0;                          // RLIMIT_DATA of the child; 0: none
  bool prefer_as_oom_victim = true;  // raises oom_score_adj, so that the system kills the child and not us
  double grace_seconds = 10;         // after SIGTERM, before SIGKILL
};

struct ProcessResult {
  int exit_code = -1;  // -1 where a signal ended it
  int signal = 0;
  double wall_seconds = 0;
  double cpu_seconds = 0;               // user + system, children waited for included
  std::uint64_t peak_memory_bytes = 0;  // largest resident set of the child or any process it waited for
};

/// Runs to the end. `on_line` gets each line of the child's standard output as it comes (without "\n"). When `cancel`
/// is set or `deadline` passes, the child's process group gets SIGTERM, then SIGKILL. The child also dies if we die.
Result<ProcessResult> run_process(const ProcessOptions& options, const std::function<void(std::string_view)>& on_line,
                                  const CancelToken& cancel, SteadyTime deadline = SteadyTime::max());

/// Processor seconds and largest resident set of this process and its finished children.
struct Usage {
  double cpu_seconds = 0;
  std::uint64_t peak_memory_bytes = 0;
};
Usage usage_so_far();

}  // namespace tailor
