#pragma once
/// Counts of observations in buckets, as Prometheus has them.

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

namespace tailor {

// Upper bounds. Those of times and of tokens are vLLM's, so that boards and rules made for it hold here too.
inline constexpr std::array kFirstTokenSeconds{.001, .005, .01, .02, .04, .06, .08, .1,  .25,  .5,   .75,
                                               1.,   2.5,  5.,  7.5, 10., 20., 40., 80., 160., 640., 2560.};
inline constexpr std::array kTokenSeconds{.01, .025, .05, .075, .1,  .15, .2,  .3,  .4, .5,
                                          .75, 1.,   2.5, 5.,   7.5, 10., 20., 40., 80.};
inline constexpr std::array kRequestSeconds{.3,  .5,  .8,  1.,  1.5,  2.,   2.5,  5.,   10.,   15.,  20.,
                                            30., 40., 50., 60., 120., 240., 480., 960., 1920., 7680.};
inline constexpr std::array kBatchedSeconds{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1., 2.5, 5., 10., 30., 60.};
inline constexpr std::array kRequestTokens{1.,   2.,    5.,    10.,   20.,    50.,    100.,   200.,
                                           500., 1000., 2000., 5000., 10000., 20000., 50000., 100000.};
inline constexpr std::array kChoiceCounts{1., 2., 5., 10., 20.};

/// Observations of one thread, added to a Histogram in one go.
class BucketCounts {
 public:
  explicit BucketCounts(std::span<const double> bounds) : bounds_(bounds), counts_(bounds.size() + 1) {}
  /// Counted by others: `counts` as counts() has them.
  BucketCounts(std::span<const double> bounds, std::span<const std::uint64_t> counts, double sum)
      : bounds_(bounds), counts_(counts.begin(), counts.end()), sum_(sum) {}
  void observe(double value, std::uint64_t times = 1) {
    counts_[bucket_of(bounds_, value)] += times;
    sum_ += value * static_cast<double>(times);
  }
  /// Of the bounds, rising, then of what lies above them all.
  std::span<const std::uint64_t> counts() const { return counts_; }
  std::span<const double> bounds() const { return bounds_; }
  double sum() const { return sum_; }
  static std::size_t bucket_of(std::span<const double> bounds, double value) {
    return static_cast<std::size_t>(std::lower_bound(bounds.begin(), bounds.end(), value) - bounds.begin());
  }

 private:
  friend class Histogram;
  std::span<const double> bounds_;
  std::vector<std::uint64_t> counts_;
  double sum_ = 0;
};

/// Threads: all, without locks. A reader may see a count before its part of the sum.
class Histogram {
 public:
  /// `bounds` rise, and stay alive.
  explicit Histogram(std::span<const double> bounds)
      : bounds_(bounds), counts_(std::make_unique<std::atomic<std::uint64_t>[]>(bounds.size() + 1)) {}
  void observe(double value) {
    counts_[BucketCounts::bucket_of(bounds_, value)].fetch_add(1, std::memory_order_relaxed);
    sum_.fetch_add(value, std::memory_order_relaxed);
  }
  void add(const BucketCounts& tally) {
    for (std::size_t i = 0; i <= bounds_.size(); ++i) {
      if (tally.counts()[i] > 0) counts_[i].fetch_add(tally.counts()[i], std::memory_order_relaxed);
    }
    sum_.fetch_add(tally.sum(), std::memory_order_relaxed);
  }
  std::span<const double> bounds() const { return bounds_; }
  BucketCounts read() const {
    BucketCounts out(bounds_);
    for (std::size_t i = 0; i <= bounds_.size(); ++i) out.counts_[i] = counts_[i].load(std::memory_order_relaxed);
    out.sum_ = sum_.load(std::memory_order_relaxed);
    return out;
  }

 private:
  std::span<const double> bounds_;
  std::unique_ptr<std::atomic<std::uint64_t>[]> counts_;
  std::atomic<double> sum_{0};
};

}  // namespace tailor
