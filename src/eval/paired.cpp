#include "eval/paired.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/rng.h"
#include "eval/statistics.h"

namespace tailor {
namespace {

Error invalid(std::string message) {
  return {ErrorCode::kInvalidArgument, std::move(message), ""};
}

// Permutation draws must not be the bootstrap's.
constexpr std::uint64_t kPermutationStream = 1ULL << 32;
// Differences are sums of the same terms in another order; equal ones must count as equal.
constexpr double kTie = 1e-12;

Result<std::vector<std::size_t>> sorted_by_id(const Answers& x) {
  if (x.rows.size() != x.truth.size() || x.rows.size() != x.predicted.size()) {
    return invalid(fmt::format("{} row ids, {} true labels and {} predictions do not belong together", x.rows.size(),
                               x.truth.size(), x.predicted.size()));
  }
  std::vector<std::size_t> order(x.rows.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::sort(order.begin(), order.end(), [&](std::size_t i, std::size_t j) { return x.rows[i] < x.rows[j]; });
  for (std::size_t i = 1; i < order.size(); ++i) {
    if (x.rows[order[i]] == x.rows[order[i - 1]])
      return invalid(fmt::format("row {} is answered twice", x.rows[order[i]]));
  }
  return order;
}

struct Pair {
  int truth;
  int a;
  int b;
  double cost_a;
  double cost_b;
};

std::vector<Pair> pairs_of(const Metric& metric, const CommonRows& rows) {
  std::vector<Pair> out(rows.truth.size());
  for (std::size_t i = 0; i < out.size(); ++i) {
    const int t = rows.truth[i];
    out[i] = {t, rows.a[i], rows.b[i], metric.row_cost(t, rows.a[i]), metric.row_cost(t, rows.b[i])};
  }
  return out;
}

struct Side {
  Tally tally;
  double cost = 0;
  void reset(int classes) {
    tally.reset(classes);
    cost = 0;
  }
  void add(int truth, int predicted, double row_cost) {
    tally.add(truth, predicted);
    cost += row_cost;
  }
};

double difference_of(const Metric& metric, const CommonRows& rows, int classes) {
  return metric.score(rows.truth, rows.a, classes) - metric.score(rows.truth, rows.b, classes);
}

}  // namespace

Result<CommonRows> common_rows(const Answers& a, const Answers& b) {
  TAILOR_TRY(const auto in_a, sorted_by_id(a));
  TAILOR_TRY(const auto in_b, sorted_by_id(b));
  CommonRows out;
  for (std::size_t i = 0, j = 0; i < in_a.size() && j < in_b.size();) {
    const std::size_t x = in_a[i];
    const std::size_t y = in_b[j];
    if (a.rows[x] < b.rows[y]) {
      ++i;
    } else if (b.rows[y] < a.rows[x]) {
      ++j;
    } else {
      if (a.truth[x] != b.truth[y]) {
        return invalid(fmt::format("row {}: one candidate was scored against label {}, the other against {}", a.rows[x],
                                   a.truth[x], b.truth[y]));
      }
      out.rows.push_back(a.rows[x]);
      out.truth.push_back(a.truth[x]);
      out.a.push_back(a.predicted[x]);
      out.b.push_back(b.predicted[y]);
      ++i;
      ++j;
    }
  }
  return out;
}

McNemar mcnemar(std::span<const int> truth, std::span<const int> a, std::span<const int> b, McNemarMethod method) {
  if (truth.size() != a.size() || truth.size() != b.size()) {
    throw Exception(invalid(
        fmt::format("McNemar's test needs rows in common, not {}, {} and {}", truth.size(), a.size(), b.size())));
  }
  McNemar out;
  for (std::size_t i = 0; i < truth.size(); ++i) {
    const bool right_a = a[i] == truth[i];
    const bool right_b = b[i] == truth[i];
    out.only_a_right += right_a && !right_b;
    out.only_b_right += right_b && !right_a;
  }
  const std::int64_t n = out.only_a_right + out.only_b_right;
  const std::int64_t fewer = std::min(out.only_a_right, out.only_b_right);
  if (n == 0) return out;
  if (method == McNemarMethod::kAuto) method = n < 25 ? McNemarMethod::kExact : McNemarMethod::kMidP;
  if (method == McNemarMethod::kChi2) {
    const double d = std::max(0.0, std::abs(static_cast<double>(out.only_a_right - out.only_b_right)) - 1.0);
    out.p_value = chi_squared_1_tail(d * d / static_cast<double>(n));
  } else {
    out.p_value = 2 * binomial_half_cdf(fewer, n);
    if (method == McNemarMethod::kMidP) out.p_value -= binomial_half_pmf(fewer, n);
    out.p_value = std::min(1.0, out.p_value);
  }
  return out;
}

PairedResult paired_bootstrap(const Metric& metric, const CommonRows& rows, int classes, const PairedOptions& options) {
  PairedResult out{.test = "bootstrap"};
  out.n_common = static_cast<std::int64_t>(rows.truth.size());
  out.difference = difference_of(metric, rows, classes);
  if (rows.truth.empty() || options.resamples < 1) return out;
  const auto pairs = pairs_of(metric, rows);
  std::vector<double> draws;
  draws.reserve(static_cast<std::size_t>(options.resamples));
  Side a;
  Side b;
  double not_positive = 1;
  double not_negative = 1;
  for (int r = 0; r < options.resamples; ++r) {
    Rng rng(options.seed, static_cast<std::uint64_t>(r));
    a.reset(classes);
    b.reset(classes);
    for (std::size_t i = 0; i < pairs.size(); ++i) {
      const Pair& row = pairs[rng.below(pairs.size())];
      a.add(row.truth, row.a, row.cost_a);
      b.add(row.truth, row.b, row.cost_b);
    }
    const double d = metric.score(a.tally, a.cost) - metric.score(b.tally, b.cost);
    not_positive += d <= kTie;
    not_negative += d >= -kTie;
    draws.push_back(d);
  }
  std::sort(draws.begin(), draws.end());
  out.low = linear_quantile(draws, 0.5 * (1 - options.confidence));
  out.high = linear_quantile(draws, 0.5 * (1 + options.confidence));
  out.p_value = std::min(1.0, 2 * std::min(not_positive, not_negative) / (1.0 + options.resamples));
  return out;
}

PairedResult paired_permutation(const Metric& metric, const CommonRows& rows, int classes,
                                const PairedOptions& options) {
  PairedResult out{.test = "permutation"};
  out.n_common = static_cast<std::int64_t>(rows.truth.size());
  out.difference = out.low = out.high = difference_of(metric, rows, classes);
  if (rows.truth.empty() || options.resamples < 1) return out;
  Side same_a;  // rows on which swapping changes nothing are counted once
  Side same_b;
  same_a.reset(classes);
  same_b.reset(classes);
  std::vector<Pair> differing;
  for (const Pair& row : pairs_of(metric, rows)) {
    if (row.a != row.b) {
      differing.push_back(row);
    } else {
      same_a.add(row.truth, row.a, row.cost_a);
      same_b.add(row.truth, row.b, row.cost_b);
    }
  }
  double as_extreme = 1;
  Side a;
  Side b;
  for (int r = 0; r < options.resamples; ++r) {
    Rng rng(options.seed, kPermutationStream + static_cast<std::uint64_t>(r));
    a = same_a;
    b = same_b;
    for (const Pair& row : differing) {
      const bool swap = (rng.bits() >> 63) != 0;
      (swap ? b : a).add(row.truth, row.a, row.cost_a);
      (swap ? a : b).add(row.truth, row.b, row.cost_b);
    }
    const double d = metric.score(a.tally, a.cost) - metric.score(b.tally, b.cost);
    as_extreme += std::abs(d) >= std::abs(out.difference) - kTie;
  }
  out.p_value = as_extreme / (1.0 + options.resamples);
  return out;
}

PairedResult paired_losses(std::span<const double> a, std::span<const double> b, const PairedOptions& options) {
  PairedResult out{.test = "permutation"};
  const std::size_t n = std::min(a.size(), b.size());
  out.n_common = static_cast<std::int64_t>(n);
  if (n == 0 || options.resamples < 1) return out;
  double sum = 0, sizes = 0;
  for (std::size_t i = 0; i < n; ++i) {
    sum += a[i] - b[i];
    sizes += std::abs(a[i] - b[i]);
  }
  out.difference = out.low = out.high = sum / static_cast<double>(n);
  double as_extreme = 1;
  for (int r = 0; r < options.resamples; ++r) {
    Rng rng(options.seed, kPermutationStream + static_cast<std::uint64_t>(r));
    double turned = 0;
    for (std::size_t i = 0; i < n; ++i) turned += (rng.bits() >> 63) != 0 ? a[i] - b[i] : b[i] - a[i];
    as_extreme += std::abs(turned) >= std::abs(sum) - kTie * sizes;
  }
  out.p_value = as_extreme / (1.0 + options.resamples);
  return out;
}

Result<PairedResult> compare_paired(const Metric& metric, const Answers& a, const Answers& b, int classes,
                                    const PairedOptions& options) {
  TAILOR_TRY(const CommonRows rows, common_rows(a, b));
  if (rows.rows.empty()) return PairedResult{.test = "none"};
  PairedResult out = paired_bootstrap(metric, rows, classes, options);
  if (metric.kind() == Metric::Kind::kAccuracy) {
    out.p_value = mcnemar(rows.truth, rows.a, rows.b, options.mcnemar).p_value;
    out.test = "mcnemar";
  } else {
    out.p_value = paired_permutation(metric, rows, classes, options).p_value;
    out.test = "permutation";
  }
  return out;
}

std::vector<double> holm_adjust(std::span<const double> p_values) {
  std::vector<std::size_t> order(p_values.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::sort(order.begin(), order.end(), [&](std::size_t i, std::size_t j) { return p_values[i] < p_values[j]; });
  std::vector<double> out(p_values.size());
  double running = 0;
  for (std::size_t rank = 0; rank < order.size(); ++rank) {
    const double adjusted = static_cast<double>(order.size() - rank) * p_values[order[rank]];
    running = std::max(running, std::min(1.0, adjusted));
    out[order[rank]] = running;
  }
  return out;
}

}  // namespace tailor
