#include "core/spawn.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstring>

namespace tailor {
namespace {

/// Only async-signal-safe calls between fork and exec: everything else is prepared by the parent.
[[noreturn]] void exec_child(char* const* argv, char* const* envp, int input, int output, int errors,
                             std::uint64_t memory_limit, bool victim, pid_t parent) {
  ::setpgid(0, 0);
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (::getppid() != parent) ::_exit(127);  // the parent died before prctl
  ::dup2(output, STDOUT_FILENO);
  if (errors >= 0) ::dup2(errors, STDERR_FILENO);
  if (input < 0) input = ::open("/dev/null", O_RDONLY);
  if (input >= 0) ::dup2(input, STDIN_FILENO);
  if (memory_limit > 0) {
    const rlimit limit{memory_limit, memory_limit};
    ::setrlimit(RLIMIT_DATA, &limit);
  }
  if (victim) {
    // The file is root's while a process keeps its memory private (private_memory.h).
    const int dumpable = ::prctl(PR_GET_DUMPABLE);
    ::prctl(PR_SET_DUMPABLE, 1);
    const int score = ::open("/proc/self/oom_score_adj", O_WRONLY);
    if (score >= 0 && ::write(score, "800", 3) < 0) { /* not allowed here: the system's own choice stands */
    }
    if (score >= 0) ::close(score);
    ::prctl(PR_SET_DUMPABLE, dumpable);
  }
  sigset_t none;
  sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  ::execve(argv[0], argv, envp);
  ::_exit(127);
}

}  // namespace

Result<pid_t> spawn(const ProcessOptions& options, int input, int output) {
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

  int errors = -1;
  if (!options.stderr_file.empty())
    errors = ::open(options.stderr_file.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  const pid_t parent = ::getpid();
  const pid_t pid = ::fork();
  if (pid == 0) {
    exec_child(argv.data(), envp.data(), input, output, errors, options.memory_limit_bytes,
               options.prefer_as_oom_victim, parent);
  }
  const int failed = errno;
  if (errors >= 0) ::close(errors);
  if (pid < 0) {
    return Error{ErrorCode::kOutOfMemory, fmt::format("cannot start {}: {}", options.command[0], std::strerror(failed)),
                 ""};
  }
  return pid;
}

}  // namespace tailor
