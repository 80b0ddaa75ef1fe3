#pragma once
/// Is the difference between two candidates real? Tests on the rows that both have answered.

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "core/result.h"
#include "eval/intervals.h"
#include "eval/metric.h"

namespace tailor {

/// What one candidate answered. `rows` are ids of the data set, each at most once, in any order. Borrowed for the call.
struct Answers {
  std::span<const std::int64_t> rows;
  std::span<const int> truth;
  std::span<const int> predicted;
};

struct CommonRows {
  std::vector<std::int64_t> rows;  // ascending
  std::vector<int> truth;
  std::vector<int> a;
  std::vector<int> b;
};

/// Rows that both have. Errors: lengths differ, an id twice, or the two disagree about a row's true label.
Result<CommonRows> common_rows(const Answers& a, const Answers& b);

enum class McNemarMethod {
  kAuto,   // exact below 25 discordant rows, else mid-p
  kExact,  // binomial on the discordant rows; conservative
  kMidP,   // the exact p less half the probability of the outcome seen (Fagerland, Lydersen, Laake 2013)
  kChi2,   // (|b - c| - 1)^2 / (b + c), one degree of freedom (Edwards 1948)
};

struct McNemar {
  std::int64_t only_a_right = 0;
  std::int64_t only_b_right = 0;
  double p_value = 1;  // two-sided; 1 without discordant rows
};
McNemar mcnemar(std::span<const int> truth, std::span<const int> a, std::span<const int> b,
                McNemarMethod method = McNemarMethod::kAuto);

struct PairedOptions {
  int resamples = 2000;      // of the bootstrap and of the permutation test
  double confidence = 0.95;  // of the interval
  std::uint64_t seed = 0;
  McNemarMethod mcnemar = McNemarMethod::kAuto;
};

struct PairedResult {
  double difference = 0;  // score of a less score of b; > 0: a is better
  double low = 0;         // percentile interval of the difference by paired bootstrap
  double high = 0;
  double p_value = 1;  // two-sided
  std::int64_t n_common = 0;
  std::string test;  // "mcnemar", "permutation", "bootstrap", or "none" without common rows
};

/// Both candidates are scored on the same drawn rows. p = 2 min(share <= 0, share >= 0), at most 1, each share counted
/// with one added to its numerator and denominator so that it is never 0.
PairedResult paired_bootstrap(const Metric& metric, const CommonRows& rows, int classes,
                              const PairedOptions& options = {});

/// Under "no difference" the two answers to a row may be swapped. p = (1 + #{|d*| >= |d|}) / (1 + resamples).
/// The interval is left at the difference itself.
PairedResult paired_permutation(const Metric& metric, const CommonRows& rows, int classes,
                                const PairedOptions& options = {});

/// Losses of a and b on the same rows; difference: mean of a less mean of b, so that below 0 a is better. Under "no
/// difference" the sign of each row's difference may be turned. The interval is left at the difference itself.
PairedResult paired_losses(std::span<const double> a, std::span<const double> b, const PairedOptions& options = {});

/// What `fit` and `compare` use: the interval by paired bootstrap; p by McNemar for accuracy, else by permutation.
/// No common rows: difference 0, p 1, n_common 0.
Result<PairedResult> compare_paired(const Metric& metric, const Answers& a, const Answers& b, int classes,
                                    const PairedOptions& options = {});

/// Holm's step-down correction: adjusted p-values in the order given (Holm 1979).
std::vector<double> holm_adjust(std::span<const double> p_values);

}  // namespace tailor
