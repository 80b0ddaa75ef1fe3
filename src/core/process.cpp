#include "core/process.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>

#include "core/spawn.h"

namespace tailor {
namespace {

using Clock = std::chrono::steady_clock;

double seconds(const timeval& t) {
  return static_cast<double>(t.tv_sec) + 1e-6 * static_cast<double>(t.tv_usec);
}

Usage usage_of(int who) {
  rusage r{};
  getrusage(who, &r);
  return {seconds(r.ru_utime) + seconds(r.ru_stime), static_cast<std::uint64_t>(r.ru_maxrss) * 1024};
}

class LineSplitter {
 public:
  explicit LineSplitter(const std::function<void(std::string_view)>& sink) : sink_(sink) {}
  void add(std::string_view bytes) {
    pending_.append(bytes);
    std::size_t begin = 0;
    for (std::size_t end; (end = pending_.find('\n', begin)) != std::string::npos; begin = end + 1) {
      if (sink_) sink_(std::string_view(pending_).substr(begin, end - begin));
    }
    pending_.erase(0, begin);
  }
  void finish() {
    if (!pending_.empty() && sink_) sink_(pending_);
    pending_.clear();
  }

 private:
  const std::function<void(std::string_view)>& sink_;
  std::string pending_;
};

}  // namespace

Usage usage_so_far() {
  const Usage self = usage_of(RUSAGE_SELF);
  const Usage children = usage_of(RUSAGE_CHILDREN);
  return {self.cpu_seconds + children.cpu_seconds, std::max(self.peak_memory_bytes, children.peak_memory_bytes)};
}

namespace {

/// A child and its output's end of a pipe. Where who hears its lines throws, it is killed.
class Child {
 public:
  Child(pid_t pid, int output) : pid_(pid), output_(output) {}
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;
  ~Child() {
    ::close(output_);
    if (pid_ < 0) return;
    ::kill(-pid_, SIGKILL);
    rusage usage{};
    wait(usage);
  }
  int wait(rusage& usage) {
    int status = 0;
    while (::wait4(pid_, &status, 0, &usage) < 0 && errno == EINTR) {
    }
    pid_ = -1;
    return status;
  }

 private:
  pid_t pid_;
  int output_;
};

}  // namespace

Result<ProcessResult> run_process(const ProcessOptions& options, const std::function<void(std::string_view)>& on_line,
                                  const CancelToken& cancel, SteadyTime deadline) {
  if (options.command.empty()) return Error{ErrorCode::kInternal, "run_process: empty command", ""};
  std::array<int, 2> pipe_ends{};
  if (::pipe2(pipe_ends.data(), O_CLOEXEC) != 0)
    return Error{ErrorCode::kIo, fmt::format("cannot make a pipe: {}", std::strerror(errno)), ""};
  const auto start = Clock::now();
  const Result<pid_t> started = spawn(options, -1, pipe_ends[1]);
  ::close(pipe_ends[1]);
  if (!started) {
    ::close(pipe_ends[0]);
    return started.error();
  }
  const pid_t pid = *started;
  Child child(pid, pipe_ends[0]);

  LineSplitter lines(on_line);
  bool open = true;
  bool terminated = false;
  auto kill_at = SteadyTime::max();
  std::array<char, 1 << 16> buffer{};
  while (open) {
    pollfd waiting{pipe_ends[0], POLLIN, 0};
    const int ready = ::poll(&waiting, 1, 100);
    if (ready > 0) {
      const ssize_t n = ::read(pipe_ends[0], buffer.data(), buffer.size());
      if (n > 0)
        lines.add({buffer.data(), static_cast<std::size_t>(n)});
      else if (n == 0 || errno != EINTR)
        open = false;
    }
    const auto now = Clock::now();
    if (!terminated && (cancel.cancelled() || now >= deadline)) {
      ::kill(-pid, SIGTERM);
      terminated = true;
      kill_at = now + std::chrono::milliseconds(static_cast<long>(options.grace_seconds * 1000));
    }
    if (now >= kill_at) {
      ::kill(-pid, SIGKILL);
      kill_at = SteadyTime::max();
    }
  }
  lines.finish();
  rusage usage{};
  const int status = child.wait(usage);
  ProcessResult result;
  result.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  result.signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
  result.wall_seconds = std::chrono::duration<double>(Clock::now() - start).count();
  result.cpu_seconds = seconds(usage.ru_utime) + seconds(usage.ru_stime);
  result.peak_memory_bytes = static_cast<std::uint64_t>(usage.ru_maxrss) * 1024;
  return result;
}

}  // namespace tailor
