#include "tune/metric.h"

#include <algorithm>
#include <vector>

namespace tailor::tune {

double Scores::value(Metric metric) const {
  switch (metric) {
    case Metric::kAccuracy:
      return accuracy;
    case Metric::kMacroF1:
      return macro_f1;
    case Metric::kMicroF1:
      return micro_f1;
    case Metric::kLoss:
      break;
  }
  return -loss;
}

namespace {

void score_label_sets(const Predictions& predictions, const TokenFile& file, RowSpan rows, Scores& out) {
  const auto labels = static_cast<std::size_t>(predictions.labels);
  std::vector<double> hits(labels, 0), predicted(labels, 0), truth(labels, 0);
  double right = 0;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const auto target = file.targets_of(static_cast<std::size_t>(rows[i]));
    bool same = true;
    for (std::size_t l = 0; l < labels; ++l) {
      const bool said = predictions.probabilities[i * labels + l] >= 0.5f, holds = target[l] >= 0.5f;
      predicted[l] += said ? 1 : 0;
      truth[l] += holds ? 1 : 0;
      hits[l] += said && holds ? 1 : 0;
      same = same && said == holds;
    }
    right += same ? 1 : 0;
  }
  out.rows = static_cast<std::int64_t>(rows.size());
  if (out.rows == 0) return;
  out.accuracy = right / static_cast<double>(out.rows);
  const auto f1 = [](double hit, double both) { return both > 0 ? 2 * hit / both : 0; };
  double all_hits = 0, all = 0;
  for (std::size_t l = 0; l < labels; ++l) {
    out.macro_f1 += f1(hits[l], predicted[l] + truth[l]) / static_cast<double>(labels);
    all_hits += hits[l];
    all += predicted[l] + truth[l];
  }
  out.micro_f1 = f1(all_hits, all);
}

}  // namespace

Scores score(const Predictions& predictions, const TokenFile& file, RowSpan rows) {
  Scores out;
  out.loss = predictions.weight > 0 ? predictions.loss_sum / predictions.weight : 0;
  const auto labels = static_cast<std::size_t>(predictions.labels);
  if (labels == 0) return out;
  if (!file.targets.empty()) {
    score_label_sets(predictions, file, rows, out);
    return out;
  }
  std::vector<double> hits(labels, 0), predicted(labels, 0), truth(labels, 0);
  double right = 0;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const std::int32_t label = file.labels[static_cast<std::size_t>(rows[i])];
    if (label < 0) continue;
    const auto p = predictions.probabilities.begin() + static_cast<std::ptrdiff_t>(i * labels);
    const auto best = static_cast<std::size_t>(std::max_element(p, p + static_cast<std::ptrdiff_t>(labels)) - p);
    ++out.rows;
    ++predicted[best];
    ++truth[static_cast<std::size_t>(label)];
    if (best == static_cast<std::size_t>(label)) {
      ++hits[best];
      ++right;
    }
  }
  if (out.rows == 0) return out;
  out.accuracy = right / static_cast<double>(out.rows);
  double total = 0;
  double present = 0;
  for (std::size_t l = 0; l < labels; ++l) {
    if (truth[l] + predicted[l] == 0) continue;
    total += 2 * hits[l] / (truth[l] + predicted[l]);
    ++present;
  }
  out.macro_f1 = total / present;
  return out;
}

}  // namespace tailor::tune
