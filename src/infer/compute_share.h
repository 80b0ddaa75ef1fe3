#pragma once
/// The machine's cores, shared by all that compute in one process: as many run at once as there are cores, each with
/// its part of them. One alone has all; two on two cores have one each, which is faster than two that take turns with
/// two (no barriers, other caches).

#include <condition_variable>
#include <cstdint>
#include <mutex>

namespace tailor {

/// Threads: all calls from any.
class ComputeShare {
 public:
  explicit ComputeShare(int cores) : cores_(cores), free_(cores) {}

  /// Whether one has something to compute, now or between two turns.
  class Busy {
   public:
    explicit Busy(ComputeShare& share) : share_(share) {}
    Busy(const Busy&) = delete;
    Busy& operator=(const Busy&) = delete;
    ~Busy() { set(false); }
    void set(bool busy) {
      if (busy != busy_) share_.add_busy(busy ? 1 : -1);
      busy_ = busy;
    }

   private:
    ComputeShare& share_;
    bool busy_ = false;
  };

  /// A turn of computing; threads() of it.
  class Turn {
   public:
    explicit Turn(ComputeShare& share) : share_(share), threads_(share.acquire()) {}
    Turn(const Turn&) = delete;
    Turn& operator=(const Turn&) = delete;
    ~Turn() { share_.release(threads_); }
    int threads() const { return threads_; }

   private:
    ComputeShare& share_;
    int threads_;
  };

  int cores() const { return cores_; }

 private:
  void add_busy(int change) {
    const std::lock_guard lock(mutex_);
    busy_ += change;
  }
  /// In the order of asking.
  int acquire() {
    std::unique_lock lock(mutex_);
    const std::uint64_t ticket = next_ticket_++;
    changed_.wait(lock, [&] { return ticket == serving_ && free_ > 0; });
    ++serving_;
    const int fair = busy_ > 1 ? cores_ / busy_ : cores_;
    const int threads = fair < 1 ? 1 : fair < free_ ? fair : free_;
    free_ -= threads;
    changed_.notify_all();
    return threads;
  }
  void release(int threads) {
    const std::lock_guard lock(mutex_);
    free_ += threads;
    changed_.notify_all();
  }

  const int cores_;
  std::mutex mutex_;
  std::condition_variable changed_;
  int free_;
  int busy_ = 0;
  std::uint64_t next_ticket_ = 0, serving_ = 0;
};

}  // namespace tailor
