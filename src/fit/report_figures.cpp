#include "fit/report_figures.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>

namespace tailor {
namespace {

bool known(const Predictions& p, std::size_t i) {
  return p.truth[i] >= 0;
}
bool right(const Predictions& p, std::size_t i) {
  return p.truth[i] == p.predicted[i];
}

/// Positions of rows with a known truth, the most certain first; equal ones in the order of their ids.
std::vector<std::size_t> by_confidence(const Predictions& p) {
  std::vector<std::size_t> order;
  for (std::size_t i = 0; i < p.size(); ++i) {
    if (known(p, i)) order.push_back(i);
  }
  std::sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    const double x = confidence_of(p, a), y = confidence_of(p, b);
    return x != y ? x > y : p.rows[a] < p.rows[b];
  });
  return order;
}

}  // namespace

double confidence_of(const Predictions& p, std::size_t i) {
  if (p.predicted[i] < 0 || i >= p.probabilities.rows ||
      static_cast<std::size_t>(p.predicted[i]) >= p.probabilities.cols)
    return 0;
  return p.probabilities.row(i)[static_cast<std::size_t>(p.predicted[i])];
}

std::vector<ReliabilityBin> reliability_bins(const Predictions& p, int bins) {
  std::vector<ReliabilityBin> out(static_cast<std::size_t>(bins));
  for (int b = 0; b < bins; ++b) {
    out[static_cast<std::size_t>(b)].low = static_cast<double>(b) / bins;
    out[static_cast<std::size_t>(b)].high = static_cast<double>(b + 1) / bins;
  }
  for (std::size_t i = 0; i < p.size(); ++i) {
    if (!known(p, i)) continue;
    const double confidence = confidence_of(p, i);
    const int at = std::clamp(static_cast<int>(std::ceil(confidence * bins)) - 1, 0, bins - 1);
    ReliabilityBin& bin = out[static_cast<std::size_t>(at)];
    ++bin.rows;
    bin.confidence += confidence;
    bin.accuracy += right(p, i) ? 1 : 0;
  }
  for (auto& bin : out) {
    if (bin.rows == 0) continue;
    bin.confidence /= static_cast<double>(bin.rows);
    bin.accuracy /= static_cast<double>(bin.rows);
  }
  return out;
}

std::vector<CoveragePoint> coverage_curve(const Predictions& p, std::size_t points) {
  const auto order = by_confidence(p);
  std::vector<CoveragePoint> all;
  std::size_t correct = 0;
  for (std::size_t k = 0; k < order.size(); ++k) {
    correct += right(p, order[k]) ? 1 : 0;
    const double confidence = confidence_of(p, order[k]);
    if (k + 1 < order.size() && confidence_of(p, order[k + 1]) == confidence) continue;
    all.push_back({confidence, static_cast<double>(k + 1) / static_cast<double>(order.size()),
                   static_cast<double>(correct) / static_cast<double>(k + 1)});
  }
  std::reverse(all.begin(), all.end());
  if (points < 2 || all.size() <= points) return all;
  std::vector<CoveragePoint> thinned;
  for (std::size_t i = 0; i < points; ++i) thinned.push_back(all[i * (all.size() - 1) / (points - 1)]);
  return thinned;
}

std::vector<HandOver> hand_over(const Predictions& test, const Predictions& choose, std::span<const double> wanted) {
  std::vector<double> confidences;
  for (std::size_t i = 0; i < choose.size(); ++i) confidences.push_back(confidence_of(choose, i));
  std::sort(confidences.begin(), confidences.end());
  std::vector<HandOver> out;
  for (const double share : wanted) {
    HandOver h{.wanted = share};
    if (!confidences.empty() && share > 0) {
      const auto at = static_cast<std::size_t>(share * static_cast<double>(confidences.size()));
      h.threshold = confidences[std::min(at, confidences.size() - 1)];
    }
    std::size_t rows = 0, answered = 0, correct = 0;
    for (std::size_t i = 0; i < test.size(); ++i) {
      if (!known(test, i)) continue;
      ++rows;
      if (confidence_of(test, i) < h.threshold) continue;
      ++answered;
      correct += right(test, i) ? 1 : 0;
    }
    if (rows == 0) return out;
    h.handed = 1 - static_cast<double>(answered) / static_cast<double>(rows);
    h.accuracy = answered == 0 ? 0 : static_cast<double>(correct) / static_cast<double>(answered);
    h.wrong_per_thousand = 1000.0 * static_cast<double>(answered - correct) / static_cast<double>(rows);
    out.push_back(h);
  }
  return out;
}

std::vector<ConfusedPair> confused_pairs(const Predictions& p) {
  std::map<std::pair<int, int>, std::size_t> counts;
  std::map<int, std::size_t> support;
  for (std::size_t i = 0; i < p.size(); ++i) {
    if (!known(p, i)) continue;
    ++support[p.truth[i]];
    if (!right(p, i)) ++counts[{p.truth[i], p.predicted[i]}];
  }
  std::vector<ConfusedPair> pairs;
  for (const auto& [pair, rows] : counts) pairs.push_back({pair.first, pair.second, rows, support[pair.first]});
  std::stable_sort(pairs.begin(), pairs.end(),
                   [](const ConfusedPair& a, const ConfusedPair& b) { return a.rows > b.rows; });
  return pairs;
}

std::vector<std::size_t> wrong_rows(const Predictions& p) {
  std::vector<std::size_t> wrong;
  for (const std::size_t i : by_confidence(p)) {
    if (!right(p, i)) wrong.push_back(i);
  }
  return wrong;
}

}  // namespace tailor
