#include "serve/log_sink.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "core/files.h"

namespace tailor {
namespace {

constexpr std::uint64_t kLeastFile = 64 << 10;
constexpr std::chrono::hours kLeastAge{1};
constexpr std::size_t kPiece = 4096;  // PIPE_BUF: a pipe that can be written to takes so much without waiting
constexpr int kLastWaitMs = 1000;     // at the end, for a reader that takes nothing

using Time = std::chrono::system_clock::time_point;

Time time_of(std::int64_t seconds) {
  return Time(std::chrono::seconds(seconds));
}

/// When an open file was made; where the file system does not say, when it was last written to.
Time birth(int file) {
  struct statx status {};
  if (statx(file, "", AT_EMPTY_PATH, STATX_BTIME | STATX_MTIME, &status) != 0) return Time::max();
  return time_of((status.stx_mask & STATX_BTIME) != 0 ? status.stx_btime.tv_sec : status.stx_mtime.tv_sec);
}

}  // namespace

Result<std::unique_ptr<LogSink>> LogSink::open(LogSinkOptions options) {
  if (!options.file.empty() && options.max_bytes < 2 * kLeastFile)
    return Error{ErrorCode::kInvalidArgument, fmt::format("a log of at most {} bytes is too small", options.max_bytes),
                 fmt::format("give it {} or more", 2 * kLeastFile)};
  std::unique_ptr<LogSink> out(new LogSink(std::move(options)));
  if (out->options_.max_age.count() > 0 && out->options_.max_age < kLeastAge)
    return Error{ErrorCode::kInvalidArgument, "a log whose lines are kept for less than an hour is too short",
                 "give it 1h or more"};
  TAILOR_CHECK(out->open_file());
  out->forget_old_lines();
  out->thread_ = std::thread([sink = out.get()] { sink->run(); });
  return out;
}

Status LogSink::open_file() {
  if (options_.file.empty()) return {};
  const int file =
      ::open(options_.file.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600);
  if (file < 0) {
    if (errno == ELOOP)
      return Error{ErrorCode::kInvalidArgument,
                   fmt::format("{} is a link; a log is written to plain files only", options_.file.string()), ""};
    return io_error("cannot write the log", options_.file, errno);
  }
  struct stat status {};
  if (fstat(file, &status) != 0 || !S_ISREG(status.st_mode)) {
    ::close(file);
    return Error{ErrorCode::kInvalidArgument, fmt::format("{} is no plain file", options_.file.string()), ""};
  }
  if ((status.st_mode & 077) != 0 && fchmod(file, 0600) != 0) {
    const int reason = errno;
    ::close(file);
    return io_error("cannot make the log its owner's alone", options_.file, reason);
  }
  if (file_ > 2) ::close(file_);
  file_ = file;
  size_ = static_cast<std::uint64_t>(status.st_size);
  begun_ = size_ > 0 ? std::min(birth(file), options_.now()) : options_.now();
  return {};
}

std::filesystem::path LogSink::older() const {
  std::filesystem::path out = options_.file;
  return out += ".1";
}

/// To a new file; the one before is the older one now.
bool LogSink::turn_over() {
  size_ = 0;
  if (::rename(options_.file.c_str(), older().c_str()) != 0 || !open_file().has_value()) return false;
  return size_ == 0;  // else somebody else writes there
}

/// A file is turned over after half of what a line may be kept, so the older one goes before its first line is too old.
void LogSink::forget_old_lines() {
  if (options_.file.empty() || options_.max_age.count() == 0) return;
  const Time now = options_.now();
  struct stat last {};
  const bool stale = size_ > 0 && fstat(file_, &last) == 0 && now - time_of(last.st_mtime) >= options_.max_age;
  if (now - begun_ >= options_.max_age / 2) {
    const bool turned = size_ > 0 && turn_over();
    if (!turned || stale) ::unlink(older().c_str());
    begun_ = now;
  } else if (::stat(older().c_str(), &last) == 0 && now - time_of(last.st_mtime) >= options_.max_age) {
    ::unlink(older().c_str());
  }
}

LogSink::~LogSink() {
  if (thread_.joinable()) {
    {
      const std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    changed_.notify_all();
    thread_.join();
  }
  if (file_ > 2) ::close(file_);
}

void LogSink::write(std::string line) {
  {
    const std::lock_guard lock(mutex_);
    if (waiting_.size() + line.size() + 1 > options_.queue_bytes) {
      dropped_.fetch_add(1, std::memory_order_relaxed);
      return;
    }
    waiting_.append(line).append("\n");
    ++waiting_lines_;
  }
  changed_.notify_one();
}

void LogSink::flush() {
  std::unique_lock lock(mutex_);
  written_.wait(lock, [&] { return waiting_.empty() && !writing_; });
}

void LogSink::run() {
  std::unique_lock lock(mutex_);
  for (;;) {
    const bool woken = changed_.wait_for(lock, options_.look_every, [&] { return stopping_ || !waiting_.empty(); });
    lock.unlock();
    forget_old_lines();
    lock.lock();
    if (!woken) continue;
    if (waiting_.empty()) return;
    const std::string bytes = std::exchange(waiting_, {});
    const std::size_t lines = std::exchange(waiting_lines_, 0);
    writing_ = true;
    lock.unlock();
    const bool all = put_all(bytes);
    if (!all) dropped_.fetch_add(lines, std::memory_order_relaxed);
    lock.lock();
    writing_ = false;
    written_.notify_all();
  }
}

/// Whole lines. Turns to a new file before one would grow over half of what is allowed.
bool LogSink::put_all(const std::string& bytes) {
  if (options_.file.empty()) {
    for (std::size_t at = 0; at < bytes.size();) {
      pollfd event{file_, POLLOUT, 0};
      if (poll(&event, 1, kLastWaitMs) == 0) {
        const std::lock_guard lock(mutex_);
        if (stopping_) return false;
        continue;
      }
      const ssize_t n = ::write(file_, bytes.data() + at, std::min(kPiece, bytes.size() - at));
      if (n < 0 && errno != EINTR && errno != EAGAIN) return false;
      if (n > 0) at += static_cast<std::size_t>(n);
    }
    return true;
  }
  const std::uint64_t most = options_.max_bytes / 2;
  for (std::size_t begin = 0; begin < bytes.size();) {
    std::size_t end = bytes.size();
    if (size_ + (end - begin) > most) {  // as many lines as fit, at least one
      const std::size_t room = size_ < most ? static_cast<std::size_t>(most - size_) : 0;
      const std::size_t last = room > 0 ? bytes.rfind('\n', begin + room - 1) : std::string::npos;
      if (last == std::string::npos || last < begin) {
        if (size_ > 0) {
          if (!turn_over()) return false;
          continue;
        }
        end = bytes.find('\n', begin) + 1;
      } else {
        end = last + 1;
      }
    }
    while (begin < end) {
      const ssize_t n = ::write(file_, bytes.data() + begin, end - begin);
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) return false;
      begin += static_cast<std::size_t>(n);
      size_ += static_cast<std::uint64_t>(n);
    }
  }
  return true;
}

}  // namespace tailor
