#include "core/system.h"

#ifdef __GLIBC__
#include <malloc.h>
#endif

#include <sched.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <fstream>
#include <limits>
#include <sstream>
#include <string_view>

namespace tailor {
namespace {

std::string field_of(const char* file, std::string_view key, char separator) {
  std::ifstream in(file);
  for (std::string line; std::getline(in, line);) {
    if (line.compare(0, key.size(), key) != 0) continue;
    const auto at = line.find(separator);
    if (at == std::string::npos) continue;
    std::string value = line.substr(at + 1);
    value.erase(0, value.find_first_not_of(" \t\""));
    value.erase(value.find_last_not_of(" \t\"") + 1);
    return value;
  }
  return "";
}

std::uint64_t number_in(const char* file, std::uint64_t fallback) {
  std::ifstream in(file);
  std::uint64_t value = 0;
  return in >> value ? value : fallback;
}

int usable_cores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  int cores =
      sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : static_cast<int>(sysconf(_SC_NPROCESSORS_ONLN));
  std::ifstream quota("/sys/fs/cgroup/cpu.max");
  double limit = 0, period = 0;
  if (quota >> limit >> period && period > 0) cores = std::min(cores, std::max(1, static_cast<int>(limit / period)));
  return std::max(1, cores);
}

/// "123 kB" in bytes.
std::uint64_t bytes_of(std::string_view kilobytes) {
  std::uint64_t value = 0;
  std::istringstream(std::string(kilobytes)) >> value;
  return value * 1024;
}

std::uint64_t memory_field(std::string_view key) {
  return bytes_of(field_of("/proc/meminfo", key, ':'));
}

}  // namespace

SystemInfo system_info() {
  SystemInfo info;
  info.cores = usable_cores();
  constexpr auto kUnlimited = std::numeric_limits<std::uint64_t>::max();
  const std::uint64_t cgroup_limit = number_in("/sys/fs/cgroup/memory.max", kUnlimited);
  const std::uint64_t cgroup_used = number_in("/sys/fs/cgroup/memory.current", 0);
  info.memory_bytes = std::min(memory_field("MemTotal"), cgroup_limit);
  info.available_bytes = memory_field("MemAvailable");
  if (cgroup_limit != kUnlimited && cgroup_limit > cgroup_used)
    info.available_bytes = std::min(info.available_bytes, cgroup_limit - cgroup_used);
  info.cpu_model = field_of("/proc/cpuinfo", "model name", ':');
  info.os = field_of("/etc/os-release", "PRETTY_NAME", '=');
  const std::string flags = " " + field_of("/proc/cpuinfo", "flags", ':') + " ";
  static constexpr std::array<std::pair<const char*, const char*>, 8> kKnown{{{" avx ", "AVX"},
                                                                              {" avx2 ", "AVX2"},
                                                                              {" fma ", "FMA"},
                                                                              {" f16c ", "F16C"},
                                                                              {" avx512f ", "AVX-512F"},
                                                                              {" avx512_vnni ", "AVX-512-VNNI"},
                                                                              {" avx_vnni ", "AVX-VNNI"},
                                                                              {" amx_tile ", "AMX"}}};
  for (const auto& [flag, name] : kKnown) {
    if (flags.find(flag) == std::string::npos) continue;
    if (!info.instruction_sets.empty()) info.instruction_sets += ' ';
    info.instruction_sets += name;
  }
  return info;
}

std::filesystem::path program_directory() {
  std::error_code error;
  const auto program = std::filesystem::read_symlink("/proc/self/exe", error);
  return error ? std::filesystem::current_path() : program.parent_path();
}

MemoryNow memory_now() {
  MemoryNow now;
  std::ifstream maps("/proc/self/smaps");
  bool heap = false;
  for (std::string line; std::getline(maps, line);) {
    if (line.find('-') != std::string::npos && line.find(':') > line.find('-')) heap = line.ends_with("[heap]");
    const std::string_view value = std::string_view(line).substr(line.find(':') + 1);
    if (line.starts_with("Rss:")) now.resident += bytes_of(value);
    if (heap && line.starts_with("Size:")) now.idle_heap += bytes_of(value);
    if (heap && line.starts_with("Rss:")) now.idle_heap -= bytes_of(value);
  }
  return now;
}

void release_free_memory() {
#ifdef __GLIBC__
  malloc_trim(0);
#endif
}

void give_large_blocks_back() {
#ifdef __GLIBC__
  mallopt(M_MMAP_THRESHOLD, 256 << 10);
  mallopt(M_TRIM_THRESHOLD, 8 << 20);  // else it is what it was at first, and every step gives pages back
#endif
}

}  // namespace tailor
