#include "serve/process_metrics.h"

#include <sys/resource.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <sstream>

namespace tailor {
namespace {

/// Unix time of the machine's start.
double boot_seconds() {
  std::ifstream file("/proc/stat");
  std::string word;
  while (file >> word) {
    double seconds = 0;
    if (word == "btime" && file >> seconds) return seconds;
  }
  return 0;
}

std::uint64_t open_files() {
  std::error_code error;
  std::uint64_t n = 0;
  for (auto at = std::filesystem::directory_iterator("/proc/self/fd", error);
       !error && at != std::filesystem::directory_iterator(); at.increment(error))
    ++n;
  return n > 0 ? n - 1 : 0;  // one of them is this look
}

}  // namespace

void write_process_metrics(MetricText& out) {
  std::ifstream file("/proc/self/stat");
  std::string stat((std::istreambuf_iterator<char>(file)), {});
  const std::size_t name_end = stat.rfind(')');  // the name may hold spaces
  if (name_end == std::string::npos) return;
  std::istringstream fields(stat.substr(name_end + 1));
  // proc(5): the third field is the first here.
  std::string skipped;
  double user = 0, system = 0, threads = 0, start = 0, virtual_bytes = 0, resident_pages = 0;
  for (int field = 3; field <= 24 && fields; ++field) {
    double* into = field == 14   ? &user
                   : field == 15 ? &system
                   : field == 20 ? &threads
                   : field == 22 ? &start
                   : field == 23 ? &virtual_bytes
                   : field == 24 ? &resident_pages
                                 : nullptr;
    if (into != nullptr)
      fields >> *into;
    else
      fields >> skipped;
  }
  if (!fields) return;
  const auto ticks = static_cast<double>(sysconf(_SC_CLK_TCK));
  const auto page = static_cast<double>(sysconf(_SC_PAGESIZE));
  out.counter("process_cpu_seconds_total", "User and system time.");
  out.sample({}, (user + system) / ticks);
  out.gauge("process_resident_memory_bytes", "Memory in use.");
  out.sample({}, static_cast<std::uint64_t>(resident_pages * page));
  out.gauge("process_virtual_memory_bytes", "Address space in use.");
  out.sample({}, static_cast<std::uint64_t>(virtual_bytes));
  out.gauge("process_threads", "Threads.");
  out.sample({}, static_cast<std::uint64_t>(threads));
  out.gauge("process_start_time_seconds", "When the process started, in Unix time.");
  out.sample({}, boot_seconds() + start / ticks);
  out.gauge("process_open_fds", "Open file descriptors.");
  out.sample({}, open_files());
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
    out.gauge("process_max_fds", "Most file descriptors the process may open.");
    out.sample({}, static_cast<std::uint64_t>(limit.rlim_cur));
  }
}

}  // namespace tailor
