#pragma once
/// A mutex for those who cannot wait: what they want done under it, its holder does for them.

#include <condition_variable>
#include <functional>
#include <mutex>
#include <utility>
#include <vector>

namespace tailor {

/// Threads: all calls from any. For std::lock_guard and std::unique_lock.
class ErrandMutex {
 public:
  void lock() {
    std::unique_lock lock(mutex_);
    free_.wait(lock, [&] { return !held_; });
    held_ = true;
  }
  /// Does what was left, then lets go.
  void unlock() {
    std::unique_lock lock(mutex_);
    while (!left_.empty()) {
      const std::vector<std::function<void()>> errands = std::exchange(left_, {});
      lock.unlock();
      for (const auto& errand : errands) errand();
      lock.lock();
    }
    held_ = false;
    free_.notify_one();
  }
  /// Done under the mutex: here and now where nobody holds it, else by who does, when he lets go. Does not wait for it.
  /// The errand must not throw nor lock this mutex.
  void leave(std::function<void()> errand) {
    {
      const std::lock_guard lock(mutex_);
      left_.push_back(std::move(errand));
      if (std::exchange(held_, true)) return;
    }
    unlock();
  }

 private:
  std::mutex mutex_;
  std::condition_variable free_;
  bool held_ = false;
  std::vector<std::function<void()>> left_;
};

}  // namespace tailor
