#pragma once
/// Wall-clock and CPU seconds of a piece of work. CPU seconds are what is compared: other programs do not change them
/// much.

#include <sys/resource.h>

#include <chrono>

namespace tailor::bench {

struct Seconds {
  double wall = 0;
  double cpu = 0;  // of all threads of this process, user and system
};

class Stopwatch {
 public:
  Stopwatch() : wall_(std::chrono::steady_clock::now()), cpu_(cpu_now()) {}
  Seconds elapsed() const {
    return {std::chrono::duration<double>(std::chrono::steady_clock::now() - wall_).count(), cpu_now() - cpu_};
  }

 private:
  static double cpu_now() {
    rusage usage{};
    getrusage(RUSAGE_SELF, &usage);
    const auto seconds = [](const timeval& t) {
      return static_cast<double>(t.tv_sec) + 1e-6 * static_cast<double>(t.tv_usec);
    };
    return seconds(usage.ru_utime) + seconds(usage.ru_stime);
  }
  std::chrono::steady_clock::time_point wall_;
  double cpu_;
};

}  // namespace tailor::bench
