#pragma once
/// Cooperative cancellation and deadlines. Passed by const reference; polled between batches and steps.

#include <atomic>
#include <chrono>
#include <optional>

namespace tailor {

using SteadyTime = std::chrono::steady_clock::time_point;

class CancelToken {
 public:
  void cancel() { flag_.store(true, std::memory_order_relaxed); }
  bool cancelled() const { return flag_.load(std::memory_order_relaxed); }

 private:
  std::atomic<bool> flag_{false};
};

}  // namespace tailor
