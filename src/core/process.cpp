#include "core/process.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>

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

/// Only async-signal-safe calls between fork and exec: everything else is prepared by the parent.
[[noreturn]] void exec_child(char* const* argv, char* const* envp, int output, int errors, std::uint64_t memory_limit,
                             bool victim, pid_t parent) {
  ::setpgid(0, 0);
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (::getppid() != parent) ::_exit(127);  // the parent died before prctl
  ::dup2(output, STDOUT_FILENO);
  if (errors >= 0) ::dup2(errors, STDERR_FILENO);
  const int null = ::open("/dev/null", O_RDONLY);
  if (null >= 0) ::dup2(null, STDIN_FILENO);
  if (memory_limit > 0) {
    const rlimit limit{memory_limit, memory_limit};
    ::setrlimit(RLIMIT_DATA, &limit);
  }
  if (victim) {
    const int score = ::open("/proc/self/oom_score_adj", O_WRONLY);
    if (score >= 0 && ::write(score, "800", 3) < 0) { /* not allowed here: the system's own choice stands */
    }
    if (score >= 0) ::close(score);
  }
  sigset_t none;
  sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  ::execve(argv[0], argv, envp);
  ::_exit(127);
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

Result<ProcessResult> run_process(const ProcessOptions& options, const std::function<void(std::string_view)>& on_line,
                                  const CancelToken& cancel, SteadyTime deadline) {
  if (options.command.empty()) return Error{ErrorCode::kInternal, "run_process: empty command", ""};
  if (::access(options.command[0].c_str(), X_OK) != 0) {
    return Error{ErrorCode::kUnavailable, fmt::format("cannot start {}: {}", options.command[0], std::strerror(errno)),
                 "run the set-up again"};
  }
  std::vector<char*> argv;
  for (const auto& word : options.command) argv.push_back(const_cast<char*>(word.c_str()));
  argv.push_back(nullptr);
  std::vector<std::string> environment;
  for (char** e = environ; *e != nullptr; ++e) {
    const std::string_view entry(*e);
    const bool replaced = std::any_of(options.environment.begin(), options.environment.end(), [&](const auto& kv) {
      return entry.size() > kv.first.size() && entry[kv.first.size()] == '=' &&
             entry.compare(0, kv.first.size(), kv.first) == 0;
    });
    if (!replaced) environment.emplace_back(entry);
  }
  for (const auto& [key, value] : options.environment) environment.push_back(key + "=" + value);
  std::vector<char*> envp;
  for (auto& entry : environment) envp.push_back(entry.data());
  envp.push_back(nullptr);

  std::array<int, 2> pipe_ends{};
  if (::pipe2(pipe_ends.data(), O_CLOEXEC) != 0)
    return Error{ErrorCode::kIo, fmt::format("cannot make a pipe: {}", std::strerror(errno)), ""};
  int errors = -1;
  if (!options.stderr_file.empty())
    errors = ::open(options.stderr_file.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  const auto start = Clock::now();
  const pid_t parent = ::getpid();
  const pid_t pid = ::fork();
  if (pid == 0) {
    exec_child(argv.data(), envp.data(), pipe_ends[1], errors, options.memory_limit_bytes, options.prefer_as_oom_victim,
               parent);
  }
  ::close(pipe_ends[1]);
  if (errors >= 0) ::close(errors);
  if (pid < 0) {
    ::close(pipe_ends[0]);
    return Error{ErrorCode::kOutOfMemory, fmt::format("cannot start {}: {}", options.command[0], std::strerror(errno)),
                 ""};
  }

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
  ::close(pipe_ends[0]);
  lines.finish();
  int status = 0;
  rusage usage{};
  while (::wait4(pid, &status, 0, &usage) < 0 && errno == EINTR) {
  }
  ProcessResult result;
  result.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  result.signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
  result.wall_seconds = std::chrono::duration<double>(Clock::now() - start).count();
  result.cpu_seconds = seconds(usage.ru_utime) + seconds(usage.ru_stime);
  result.peak_memory_bytes = static_cast<std::uint64_t>(usage.ru_maxrss) * 1024;
  return result;
}

}  // namespace tailor
