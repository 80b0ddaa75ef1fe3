#pragma once
/// Where the time of training steps goes, kernel by kernel: time on the training thread (kernels run on all threads
/// meanwhile), arithmetic and memory traffic counted from shapes. Off, a kernel pays one test of a thread's own
/// pointer. `make bench PARTS=roofline` prints it.

#include <array>
#include <chrono>
#include <cstdint>
#include <nlohmann/json_fwd.hpp>

namespace tailor::tune {

enum class Kernel : std::uint8_t {
  kProduct,          // of weights, forward
  kProductBackward,  // gradients of their inputs
  kWeightGradient,
  kAdapterProduct,  // the thin ones of low-rank adapters, forward and backward
  kAttention,
  kAttentionBackward,
  kNorm,
  kNormBackward,
  kActivation,
  kActivationBackward,
  kRotary,
  kEmbedding,  // forward and backward
  kLoss,
  kOptimiser,  // with the gradient's norm
};
inline constexpr int kKernels = 14;

/// Collects while it lives, for the thread that made it; one at a time.
class Profile {
 public:
  struct Entry {
    double seconds = 0;  // without kernels called within
    double flops = 0;    // multiplications and additions
    double bytes = 0;    // read and written at least: every operand once
    std::int64_t calls = 0;
  };

  Profile();
  ~Profile();
  Profile(const Profile&) = delete;
  Profile& operator=(const Profile&) = delete;

  /// {"steps", "seconds", "kernels": {name: {"seconds", "flops", "bytes", "calls"}}}; seconds are of whole steps.
  nlohmann::ordered_json json() const;

 private:
  friend class ProfileStep;
  friend class ProfileScope;
  void switch_to(int kernel);  // the time since the last switch goes to the kernel before; -1: to none
  std::array<Entry, kKernels> entries_;
  std::chrono::steady_clock::time_point since_;
  double seconds_ = 0;
  std::int64_t steps_ = 0;
  int now_ = -1;
  bool in_step_ = false;
};

namespace detail {
inline constinit thread_local Profile* profile = nullptr;
}

/// A training step; what runs outside of one is not counted.
class ProfileStep {
 public:
  ProfileStep();
  ~ProfileStep();
  ProfileStep(const ProfileStep&) = delete;
  ProfileStep& operator=(const ProfileStep&) = delete;

 private:
  std::chrono::steady_clock::time_point start_;
};

/// A call of a kernel. Floats, not bytes, are what kernels count by.
class ProfileScope {
 public:
  explicit ProfileScope(Kernel kernel, double flops = 0, double floats = 0) {
    if (detail::profile != nullptr) begin(kernel, flops, floats);
  }
  ~ProfileScope() {
    if (profile_ != nullptr) profile_->switch_to(before_);
  }
  ProfileScope(const ProfileScope&) = delete;
  ProfileScope& operator=(const ProfileScope&) = delete;

  /// Of c [m, n] = a [m, k] b [k, n].
  static ProfileScope product(Kernel kernel, std::int64_t m, std::int64_t n, std::int64_t k) {
    const auto rows = static_cast<double>(m), columns = static_cast<double>(n), depth = static_cast<double>(k);
    return ProfileScope(kernel, 2 * rows * columns * depth, rows * depth + depth * columns + rows * columns);
  }

 private:
  void begin(Kernel kernel, double flops, double floats);
  Profile* profile_ = nullptr;
  int before_ = -1;
};

}  // namespace tailor::tune
