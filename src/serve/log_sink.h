#pragma once
/// Lines to standard error or a file, written by a thread of its own: whoever logs never waits for a disk or a reader.

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

#include "core/result.h"

namespace tailor {

struct LogSinkOptions {
  std::filesystem::path file;                          // readable by its owner alone; empty: standard error
  std::uint64_t max_bytes = std::uint64_t{100} << 20;  // of the file and FILE.1, the one before it, together
  std::chrono::seconds max_age{0};                     // of a line in the two files; 0: any. Lines tell theirs by
                                                       // beginning with {"ts":"2026-11-30T06:25:32
  std::function<std::chrono::system_clock::time_point()> now = std::chrono::system_clock::now;
  std::chrono::milliseconds look_every = std::chrono::minutes(10);  // for lines that are too old
  std::size_t queue_bytes = std::size_t{4} << 20;  // waiting to be written; more are dropped and counted
};

/// Threads: all.
class LogSink {
 public:
  /// Appends to a file that is there; one that others may read is made the owner's alone. Errors: kIo, and
  /// kInvalidArgument for what is no plain file (a link, a device).
  static Result<std::unique_ptr<LogSink>> open(LogSinkOptions options);
  LogSink(const LogSink&) = delete;
  LogSink& operator=(const LogSink&) = delete;
  ~LogSink();  // writes what waits, as long as it is taken

  void write(std::string line);  ///< without its end
  void flush();                  ///< returns when what was written before is in the file, or was dropped
  std::uint64_t dropped() const { return dropped_.load(std::memory_order_relaxed); }  ///< lines that were left out

 private:
  explicit LogSink(LogSinkOptions options) : options_(std::move(options)) {}
  Status open_file();
  void run();
  std::size_t put(const std::string& bytes);
  std::size_t put_to_stream(const std::string& bytes);
  bool append(const std::string& bytes, std::size_t& begin, std::size_t end);
  bool turn_over();
  void look_at_older();
  void forget_old_lines();
  std::filesystem::path older() const;

  LogSinkOptions options_;
  int file_ = 2;
  std::uint64_t size_ = 0;
  std::optional<std::chrono::system_clock::time_point> begun_, older_begun_;  // the first lines; none: there is none
  std::atomic<std::uint64_t> dropped_{0};
  std::mutex mutex_;
  std::condition_variable changed_, written_;
  std::string waiting_;
  bool writing_ = false, stopping_ = false;
  std::thread thread_;
};

}  // namespace tailor
