#pragma once
/// A process that runs out of memory.

#include <sys/resource.h>

#include <cstdint>
#include <fstream>

namespace tailor::testing {

/// So much address space more than the process has now, to its end.
class LittleMemory {
 public:
  explicit LittleMemory(std::uint64_t bytes) {
    getrlimit(RLIMIT_AS, &before_);
    std::uint64_t pages = 0;
    std::ifstream("/proc/self/statm") >> pages;
    rlimit now = before_;
    now.rlim_cur = pages * 4096 + bytes;
    setrlimit(RLIMIT_AS, &now);
  }
  LittleMemory(const LittleMemory&) = delete;
  LittleMemory& operator=(const LittleMemory&) = delete;
  ~LittleMemory() { setrlimit(RLIMIT_AS, &before_); }

 private:
  rlimit before_{};
};

}  // namespace tailor::testing
