#include "serve/log_sink.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <ctime>
#include <string_view>
#include <utility>

#include "core/files.h"

namespace tailor {
namespace {

constexpr std::uint64_t kLeastFile = 64 << 10;
constexpr std::chrono::hours kLeastAge{1};
constexpr std::size_t kPiece = 4096;  // PIPE_BUF: a pipe that can be written to takes so much without waiting
constexpr std::string_view kTimeKey = "{\"ts\":\"";
constexpr std::size_t kTimeSize = 19;  // 2026-11-30T06:25:32
constexpr int kLastWaitMs = 1000;      // at the end, for a reader that takes nothing

using Time = std::chrono::system_clock::time_point;

Time time_of(std::int64_t seconds) {
  return Time(std::chrono::seconds(seconds));
}

/// Of a line {"ts":"2026-11-30T06:25:32.104Z", …; none: it does not begin so.
std::optional<Time> time_in(const std::string& line) {
  std::tm at{};
  const char* end =
      line.starts_with(kTimeKey) ? strptime(line.c_str() + kTimeKey.size(), "%Y-%m-%dT%H:%M:%S", &at) : nullptr;
  return end != nullptr ? std::optional(time_of(timegm(&at))) : std::nullopt;
}

/// Since when an open file has had lines: the time in its first one; where there is none, when the file was last
/// written to. None: it is empty.
std::optional<Time> first_line_time(int file) {
  std::string line(kTimeKey.size() + kTimeSize, '\0');
  const ssize_t got = pread(file, line.data(), line.size(), 0);
  if (got <= 0) return std::nullopt;
  line.resize(static_cast<std::size_t>(got));
  struct stat status {};
  if (const auto time = time_in(line)) return time;
  return fstat(file, &status) == 0 ? time_of(status.st_mtime) : Time{};
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
  out->look_at_older();
  out->forget_old_lines();
  out->thread_ = std::thread([sink = out.get()] { sink->run(); });
  return out;
}

Status LogSink::open_file() {
  if (options_.file.empty()) return {};
  const int file =
      ::open(options_.file.c_str(), O_RDWR | O_APPEND | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600);
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
  begun_ = first_line_time(file);
  return {};
}

void LogSink::look_at_older() {
  if (options_.file.empty()) return;
  const int file = ::open(older().c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
  if (file < 0) return;
  older_begun_ = first_line_time(file);
  ::close(file);
}

std::filesystem::path LogSink::older() const {
  std::filesystem::path out = options_.file;
  return out += ".1";
}

/// To a new file; the one before is the older one now.
bool LogSink::turn_over() {
  size_ = 0;
  if (::rename(options_.file.c_str(), older().c_str()) == 0)
    older_begun_ = begun_;
  else if (errno != ENOENT)  // one that another program has moved away leaves its place to a new one
    return false;
  begun_.reset();
  return open_file().has_value() && size_ == 0;  // else somebody else writes there
}

/// A file is turned over after half of what a line may be kept, and the older one goes when its first line is too old:
/// a line is kept for half of the time at least, whenever servers ran.
void LogSink::forget_old_lines() {
  if (options_.file.empty() || options_.max_age.count() == 0) return;
  const Time now = options_.now();
  if (begun_ && now - *begun_ >= options_.max_age / 2) turn_over();
  if (older_begun_ && now - *older_begun_ >= options_.max_age) {
    ::unlink(older().c_str());
    older_begun_.reset();
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
    writing_ = true;
    lock.unlock();
    const std::size_t written = put(bytes);
    const auto left_out = std::count(bytes.begin() + static_cast<std::ptrdiff_t>(written), bytes.end(), '\n');
    dropped_.fetch_add(static_cast<std::uint64_t>(left_out), std::memory_order_relaxed);
    lock.lock();
    writing_ = false;
    written_.notify_all();
  }
}

/// How many of the bytes: all, or up to where somebody did not take them.
std::size_t LogSink::put_to_stream(const std::string& bytes) {
  std::size_t at = 0;
  while (at < bytes.size()) {
    pollfd event{file_, POLLOUT, 0};
    if (poll(&event, 1, kLastWaitMs) == 0) {
      const std::lock_guard lock(mutex_);
      if (stopping_) break;
      continue;
    }
    const ssize_t n = ::write(file_, bytes.data() + at, std::min(kPiece, bytes.size() - at));
    if (n < 0 && errno != EINTR && errno != EAGAIN) break;
    if (n > 0) at += static_cast<std::size_t>(n);
  }
  return at;
}

/// Moves `begin` over whole lines that were written, to `end` where all were. A disk that is full may take half a line:
/// that is cut off again, lest the next one is glued to it.
bool LogSink::append(const std::string& bytes, std::size_t& begin, std::size_t end) {
  std::size_t at = begin;
  while (at < end) {
    const ssize_t n = ::write(file_, bytes.data() + at, end - at);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) break;
    at += static_cast<std::size_t>(n);
  }
  size_ += at - begin;
  const std::size_t last = at > begin ? bytes.rfind('\n', at - 1) : std::string::npos;
  if (last != std::string::npos && last >= begin) begin = last + 1;
  if (at == end) return true;
  const auto half = static_cast<off_t>(at - begin);
  struct stat status {};
  if (half > 0 && fstat(file_, &status) == 0 && ftruncate(file_, status.st_size - half) == 0) size_ -= at - begin;
  return false;
}

/// How many of the bytes, whole lines in a file. Turns to a new file before one would grow over half of what is
/// allowed.
std::size_t LogSink::put(const std::string& bytes) {
  if (options_.file.empty()) return put_to_stream(bytes);
  const std::uint64_t most = options_.max_bytes / 2;
  for (std::size_t begin = 0; begin < bytes.size();) {
    std::size_t end = bytes.size();
    if (size_ + (end - begin) > most) {  // as many lines as fit, at least one
      const std::size_t room = size_ < most ? static_cast<std::size_t>(most - size_) : 0;
      const std::size_t last = room > 0 ? bytes.rfind('\n', begin + room - 1) : std::string::npos;
      if (last == std::string::npos || last < begin) {
        if (size_ > 0) {
          if (!turn_over()) return begin;
          continue;
        }
        end = bytes.find('\n', begin) + 1;
      } else {
        end = last + 1;
      }
    }
    if (!begun_) begun_ = options_.now();
    if (!append(bytes, begin, end)) return begin;
  }
  return bytes.size();
}

}  // namespace tailor
