#pragma once
/// Counter-based random numbers: the same (seed, stream, counter) gives the same bits on every machine and in the
/// Python reference (tests/golden/counter_rng.py).
///
///   key   = mix(seed + 0x9E3779B97F4A7C15 * (stream + 1))
///   bits  = mix(key + 0x9E3779B97F4A7C15 * (counter + 1))
///   mix   = SplitMix64's finaliser (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, OOPSLA 2014)
/// uniform = (bits >> 11) * 2^-53 in [0, 1).  normal = Box-Muller on two counters: sqrt(-2 ln(1 - u1)) cos(2 pi u2).

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <numbers>
#include <utility>
#include <vector>

namespace tailor {

/// A value type; copying copies the position. Not safe to share between threads without a copy each.
class Rng {
 public:
  explicit Rng(std::uint64_t seed, std::uint64_t stream = 0) : key_(mix(seed + kGolden * (stream + 1))) {}

  static constexpr std::uint64_t mix(std::uint64_t z) {
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ULL;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBULL;
    return z ^ (z >> 31);
  }
  std::uint64_t bits() { return mix(key_ + kGolden * (++counter_)); }
  double uniform() { return static_cast<double>(bits() >> 11) * 0x1.0p-53; }
  double normal() {
    const double u1 = uniform();
    const double u2 = uniform();
    return std::sqrt(-2.0 * std::log(1.0 - u1)) * std::cos(2.0 * std::numbers::pi * u2);
  }
  /// Uniform integer in [0, n), n >= 1, without modulo bias worth naming (128-bit multiply).
  std::uint64_t below(std::uint64_t n) {
    __extension__ using Wide = unsigned __int128;
    return static_cast<std::uint64_t>((static_cast<Wide>(bits()) * n) >> 64);
  }
  /// Fisher-Yates.
  template <typename T>
  void shuffle(std::vector<T>& v) {
    for (std::size_t i = v.size(); i > 1; --i) std::swap(v[i - 1], v[below(i)]);
  }
  std::uint64_t counter() const { return counter_; }
  void set_counter(std::uint64_t counter) { counter_ = counter; }  // to resume a stream

 private:
  static constexpr std::uint64_t kGolden = 0x9E3779B97F4A7C15ULL;
  std::uint64_t key_;
  std::uint64_t counter_ = 0;
};

}  // namespace tailor
