#pragma once
/// What a thread sleeps on that has nothing to do until somebody calls it, or until some time has come.

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <optional>

#include "core/cancel.h"

namespace tailor {

/// Threads: one waits; the other calls come from any, and take no longer than each other.
class Alarm {
 public:
  void ring() {
    const std::lock_guard lock(mutex_);
    rung_ = true;
    changed_.notify_one();
  }
  /// At this time, if nothing rings before. Kept until the next ring: what is then still to come is set again.
  void ring_by(SteadyTime at) {
    const std::lock_guard lock(mutex_);
    if (at_ && *at_ <= at) return;
    at_ = at;
    changed_.notify_one();
  }
  /// Nothing rings any more.
  void stop() {
    const std::lock_guard lock(mutex_);
    stopped_ = true;
    changed_.notify_one();
  }
  /// Sleeps until it rings; false: it was stopped.
  bool wait() {
    std::unique_lock lock(mutex_);
    while (!stopped_ && !rung_ && (!at_ || std::chrono::steady_clock::now() < *at_)) {
      if (const std::optional<SteadyTime> at = at_)
        changed_.wait_until(lock, *at);
      else
        changed_.wait(lock);
    }
    rung_ = false;
    at_.reset();
    return !stopped_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool rung_ = false, stopped_ = false;
  std::optional<SteadyTime> at_;
};

}  // namespace tailor
