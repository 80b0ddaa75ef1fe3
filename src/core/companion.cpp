#include "core/companion.h"

#include <fmt/format.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstring>
#include <utility>

#include "core/spawn.h"

namespace tailor {
namespace {

constexpr int kPollMilliseconds = 100;

/// Pipes between us and the child, closed with it.
struct Pipe {
  std::array<int, 2> ends{-1, -1};
  /// A pair of sockets rather than a pipe: a write to a process that is gone is then an error and no signal.
  Status open() {
    if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()) == 0) return {};
    return Error{ErrorCode::kIo, fmt::format("cannot make a pipe: {}", std::strerror(errno)), ""};
  }
  void close(int end) {
    if (ends[static_cast<std::size_t>(end)] >= 0) ::close(ends[static_cast<std::size_t>(end)]);
    ends[static_cast<std::size_t>(end)] = -1;
  }
  int release(int end) { return std::exchange(ends[static_cast<std::size_t>(end)], -1); }
  ~Pipe() {
    close(0);
    close(1);
  }
};

}  // namespace

Result<std::unique_ptr<Companion>> Companion::start(const ProcessOptions& options) {
  Pipe to, from;
  TAILOR_CHECK(to.open());
  TAILOR_CHECK(from.open());
  TAILOR_TRY(const pid_t pid, spawn(options, to.ends[0], from.ends[1]));
  return std::unique_ptr<Companion>(
      new Companion(options.command[0], pid, to.release(1), from.release(0), options.grace_seconds));
}

Companion::~Companion() {
  ::close(to_);
  ::close(from_);
  int status = 0;
  const auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(grace_);
  while (::waitpid(pid_, &status, WNOHANG) == 0) {
    if (std::chrono::steady_clock::now() >= end) {
      ::kill(-pid_, SIGKILL);
      ::waitpid(pid_, &status, 0);
      return;
    }
    ::usleep(2000);
  }
}

Error Companion::gone() const {
  return {ErrorCode::kUnavailable, fmt::format("{} has ended before it answered", name_),
          "its last words, if it had any, stand above"};
}

Result<std::string> Companion::ask(std::string_view line, const CancelToken& cancel) {
  return exchange(std::string(line) + '\n', cancel);
}

Result<std::string> Companion::exchange(std::string_view message, const CancelToken& cancel) {
  std::size_t sent = 0;
  std::array<char, 1 << 16> buffer{};
  while (true) {
    if (const std::size_t end = pending_.find('\n'); end != std::string::npos && sent == message.size()) {
      std::string answer = pending_.substr(0, end);
      pending_.erase(0, end + 1);
      return answer;
    }
    if (cancel.cancelled()) return Error{ErrorCode::kCancelled, "interrupted", ""};
    std::array<pollfd, 2> waiting{
        {{from_, POLLIN, 0}, {to_, static_cast<short>(sent < message.size() ? POLLOUT : 0), 0}}};
    if (::poll(waiting.data(), waiting.size(), kPollMilliseconds) < 0 && errno != EINTR) return gone();
    if ((waiting[1].revents & POLLOUT) != 0) {
      const ssize_t n = ::send(to_, message.data() + sent, message.size() - sent, MSG_NOSIGNAL | MSG_DONTWAIT);
      if (n > 0) sent += static_cast<std::size_t>(n);
      if (n < 0 && errno != EAGAIN && errno != EINTR) return gone();
    } else if ((waiting[1].revents & (POLLERR | POLLHUP)) != 0 && sent < message.size()) {
      return gone();
    }
    if ((waiting[0].revents & (POLLIN | POLLHUP)) != 0) {
      const ssize_t n = ::read(from_, buffer.data(), buffer.size());
      if (n > 0) pending_.append(buffer.data(), static_cast<std::size_t>(n));
      if (n == 0 || (n < 0 && errno != EINTR)) return gone();
    }
  }
}

}  // namespace tailor
