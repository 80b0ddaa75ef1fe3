#include "core/private_memory.h"

#include <gtest/gtest.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/process.h"

namespace tailor {
namespace {

/// What `look` returns in a process of its own.
int in_child(int (*look)()) {
  const pid_t child = fork();
  if (child == 0) _exit(look());
  int status = 0;
  return child > 0 && waitpid(child, &status, 0) == child && WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

TEST(PrivateMemory, NoCoreFileAndNoDebugger) {
  EXPECT_EQ(in_child([] {
              if (!keep_memory_private()) return 1;
              rlimit limit{};
              if (getrlimit(RLIMIT_CORE, &limit) != 0 || limit.rlim_cur != 0 || limit.rlim_max != 0) return 2;
              return prctl(PR_GET_DUMPABLE) == 0 ? 0 : 3;
            }),
            0);
}

TEST(PrivateMemory, WhatItStartsHasNoCoreFileAndIsStillTheFirstThatTheSystemKills) {
  EXPECT_EQ(in_child([] {
              if (getuid() == 0 && setuid(65534) != 0) return 1;  // root may write what belongs to it
              if (!keep_memory_private()) return 2;
              std::string out;
              const CancelToken never;
              const auto done = run_process(
                  {.command = {"/bin/sh", "-c", "cat /proc/self/oom_score_adj; ulimit -c"}},
                  [&](std::string_view line) { out += std::string(line) + ";"; }, never);
              if (!done || done->exit_code != 0) return 3;
              return out == "800;0;" ? 0 : 4;
            }),
            0);
}

}  // namespace
}  // namespace tailor
