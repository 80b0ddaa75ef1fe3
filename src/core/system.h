#pragma once
/// What this machine has.

#include <cstdint>
#include <filesystem>
#include <string>

namespace tailor {

struct SystemInfo {
  int cores = 1;                      // that this process may use (affinity and cgroup quota)
  std::uint64_t memory_bytes = 0;     // total, or the cgroup's limit where lower
  std::uint64_t available_bytes = 0;  // now
  std::string cpu_model;
  std::string instruction_sets;  // "AVX2 FMA F16C AVX-512F …", those that matter here
  std::string os;                // "Debian GNU/Linux 12 (bookworm)"
};
SystemInfo system_info();

/// Gives memory that was freed back to the system, as far as the C library can; what comes next does not stand on top
/// of it then.
void release_free_memory();

/// From now on blocks above 256 KiB are mappings of their own, which are gone when they are freed: for a process that
/// lives long and exchanges what it holds. By default the C library moves that limit up to 32 MiB as large blocks are
/// freed, and weights of models then leave holes between what stays.
void give_large_blocks_back();

/// Bytes in memory now, of this process (`resident`), and of the C library's heap those that were given back or never
/// used (`idle_heap`): where allocations fall otherwise they come back.
struct MemoryNow {
  std::uint64_t resident = 0, idle_heap = 0;
};
MemoryNow memory_now();

/// Directory of the running program; and where set-up put models and libraries.
std::filesystem::path program_directory();

}  // namespace tailor
