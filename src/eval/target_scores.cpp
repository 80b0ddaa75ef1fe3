#include "eval/target_scores.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "core/result.h"
#include "eval/resampling.h"

namespace tailor {
namespace {

void require_equal(std::size_t a, std::size_t b) {
  if (a != b) throw Exception({ErrorCode::kInvalidArgument, fmt::format("{} values are held against {}", a, b), ""});
}

std::vector<double> ranks(std::span<const double> values) {
  std::vector<std::size_t> order(values.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return values[a] < values[b]; });
  std::vector<double> out(values.size());
  for (std::size_t first = 0; first < order.size();) {
    std::size_t end = first + 1;
    while (end < order.size() && values[order[end]] == values[order[first]]) ++end;
    for (std::size_t i = first; i < end; ++i) out[order[i]] = static_cast<double>(first + end - 1) / 2 + 1;
    first = end;
  }
  return out;
}

struct SetTally {
  std::vector<double> hits, both;  // of each label; both: said + holds
  double right = 0, rows = 0;

  explicit SetTally(std::size_t labels) : hits(labels, 0), both(labels, 0) {}
  void add(const LabelSets& sets, std::size_t row) {
    bool same = true;
    for (std::size_t l = 0; l < sets.labels; ++l) {
      const bool holds = sets.truth[row * sets.labels + l] != 0, said = sets.predicted[row * sets.labels + l] != 0;
      hits[l] += holds && said ? 1 : 0;
      both[l] += (holds ? 1 : 0) + (said ? 1 : 0);
      same = same && holds == said;
    }
    right += same ? 1 : 0;
    ++rows;
  }
  static double f1(double hit, double sum) { return sum > 0 ? 2 * hit / sum : 0; }
  double micro() const {
    return f1(std::accumulate(hits.begin(), hits.end(), 0.0), std::accumulate(both.begin(), both.end(), 0.0));
  }
  double macro() const {
    double total = 0;
    for (std::size_t l = 0; l < hits.size(); ++l) total += f1(hits[l], both[l]);
    return hits.empty() ? 0 : total / static_cast<double>(hits.size());
  }
  double subset() const { return rows > 0 ? right / rows : 0; }
};

SetTally tally(const LabelSets& sets) {
  require_equal(sets.truth.size(), sets.predicted.size());
  SetTally t(sets.labels);
  for (std::size_t r = 0; r < sets.rows(); ++r) t.add(sets, r);
  return t;
}

}  // namespace

double root_mean_squared_error(std::span<const double> truth, std::span<const double> predicted) {
  require_equal(truth.size(), predicted.size());
  double sum = 0;
  for (std::size_t i = 0; i < truth.size(); ++i) sum += (truth[i] - predicted[i]) * (truth[i] - predicted[i]);
  return truth.empty() ? 0 : std::sqrt(sum / static_cast<double>(truth.size()));
}

double mean_absolute_error(std::span<const double> truth, std::span<const double> predicted) {
  require_equal(truth.size(), predicted.size());
  double sum = 0;
  for (std::size_t i = 0; i < truth.size(); ++i) sum += std::abs(truth[i] - predicted[i]);
  return truth.empty() ? 0 : sum / static_cast<double>(truth.size());
}

double pearson_correlation(std::span<const double> a, std::span<const double> b) {
  require_equal(a.size(), b.size());
  if (a.empty()) return 0;
  const auto n = static_cast<double>(a.size());
  const double mean_a = std::accumulate(a.begin(), a.end(), 0.0) / n;
  const double mean_b = std::accumulate(b.begin(), b.end(), 0.0) / n;
  double ab = 0, aa = 0, bb = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    ab += (a[i] - mean_a) * (b[i] - mean_b);
    aa += (a[i] - mean_a) * (a[i] - mean_a);
    bb += (b[i] - mean_b) * (b[i] - mean_b);
  }
  return aa > 0 && bb > 0 ? ab / std::sqrt(aa * bb) : 0;
}

double spearman_correlation(std::span<const double> a, std::span<const double> b) {
  require_equal(a.size(), b.size());
  return pearson_correlation(ranks(a), ranks(b));
}

Json to_json(const NumberScores& s) {
  return Json{{"rmse", to_json(s.rmse)},
              {"mae", to_json(s.mae)},
              {"pearson", to_json(s.pearson)},
              {"spearman", to_json(s.spearman)}};
}

NumberScores bootstrap_numbers(std::span<const double> truth, std::span<const double> predicted,
                               const BootstrapOptions& options) {
  require_equal(truth.size(), predicted.size());
  std::vector<double> rmse, mae, pearson, spearman, t(truth.size()), p(truth.size());
  resample(truth.size(), options, [&](const std::vector<std::size_t>& rows) {
    for (std::size_t i = 0; i < rows.size(); ++i) {
      t[i] = truth[rows[i]];
      p[i] = predicted[rows[i]];
    }
    rmse.push_back(root_mean_squared_error(t, p));
    mae.push_back(mean_absolute_error(t, p));
    pearson.push_back(pearson_correlation(t, p));
    spearman.push_back(spearman_correlation(t, p));
  });
  const double c = options.confidence;
  return {percentiles(root_mean_squared_error(truth, predicted), std::move(rmse), c),
          percentiles(mean_absolute_error(truth, predicted), std::move(mae), c),
          percentiles(pearson_correlation(truth, predicted), std::move(pearson), c),
          percentiles(spearman_correlation(truth, predicted), std::move(spearman), c)};
}

double micro_f1(const LabelSets& sets) {
  return tally(sets).micro();
}
double macro_f1(const LabelSets& sets) {
  return tally(sets).macro();
}
double subset_accuracy(const LabelSets& sets) {
  return tally(sets).subset();
}

Json to_json(const LabelSetScores& s) {
  return Json{{"micro_f1", to_json(s.micro_f1)},
              {"macro_f1", to_json(s.macro_f1)},
              {"subset_accuracy", to_json(s.subset_accuracy)}};
}

LabelSetScores bootstrap_label_sets(const LabelSets& sets, const BootstrapOptions& options) {
  const SetTally whole = tally(sets);
  std::vector<double> micro, macro, subset;
  resample(sets.rows(), options, [&](const std::vector<std::size_t>& rows) {
    SetTally t(sets.labels);
    for (const std::size_t r : rows) t.add(sets, r);
    micro.push_back(t.micro());
    macro.push_back(t.macro());
    subset.push_back(t.subset());
  });
  const double c = options.confidence;
  return {percentiles(whole.micro(), std::move(micro), c), percentiles(whole.macro(), std::move(macro), c),
          percentiles(whole.subset(), std::move(subset), c)};
}

double best_threshold(std::span<const float> probabilities, std::span<const std::uint8_t> truth, std::size_t labels) {
  require_equal(probabilities.size(), truth.size());
  if (probabilities.empty() || labels == 0) return 0.5;
  double best = 0.5, best_score = -1;
  for (int step = 0; step < 99; ++step) {  // 0.50, 0.51, 0.49, 0.52, …: a later one has to be better
    const int percent = step % 2 == 1 ? 50 + (step + 1) / 2 : 50 - step / 2;
    const double threshold = percent / 100.0;
    double hits = 0, both = 0;
    for (std::size_t i = 0; i < probabilities.size(); ++i) {
      const bool said = probabilities[i] >= threshold, holds = truth[i] != 0;
      hits += said && holds ? 1 : 0;
      both += (said ? 1 : 0) + (holds ? 1 : 0);
    }
    const double score = SetTally::f1(hits, both);
    if (score > best_score) {
      best_score = score;
      best = threshold;
    }
  }
  return best;
}

}  // namespace tailor
