#pragma once
/// How fast what waits is worked off.

#include <chrono>
#include <cmath>
#include <optional>

#include "core/cancel.h"

namespace tailor {

/// A decayed average over the time in which something waited: what is done while there is room shows what is asked for,
/// not what can be done. Units of work are the caller's: those in which it counts what waits, so that an estimate that
/// is always twice too high makes the rate twice too high as well. Threads: one at a time.
class DrainRate {
 public:
  /// `work` was done since the last call; `waits`: from now on something waits.
  void advance(double work, bool waits, SteadyTime now) {
    if (waited_ && now > last_) {
      const double passed = std::chrono::duration<double>(now - last_).count();
      const double kept = std::exp(-passed / kMemorySeconds);
      seconds_ = seconds_ * kept + passed;
      work_ = work_ * kept + work;
    }
    last_ = now;
    waited_ = waits;
  }
  /// None: nothing has waited for a second in all, so that nobody knows.
  std::optional<double> per_second() const {
    if (seconds_ < kLeastSeconds || work_ <= 0) return std::nullopt;
    return work_ / seconds_;
  }

 private:
  static constexpr double kMemorySeconds = 20;  // of waiting, after which a measure weighs a third
  static constexpr double kLeastSeconds = 1;
  double work_ = 0, seconds_ = 0;
  bool waited_ = false;
  SteadyTime last_;
};

}  // namespace tailor
