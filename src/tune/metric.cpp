#include "tune/metric.h"

#include <algorithm>
#include <vector>

#include "core/tag_spans.h"

namespace tailor::tune {

double Scores::value(Metric metric) const {
  switch (metric) {
    case Metric::kAccuracy:
      return accuracy.value_or(0);
    case Metric::kMacroF1:
      return macro_f1.value_or(0);
    case Metric::kMicroF1:
      return micro_f1.value_or(0);
    case Metric::kEntityF1:
      return entity_f1.value_or(0);
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
  double all_hits = 0, all = 0, sum = 0;
  for (std::size_t l = 0; l < labels; ++l) {
    sum += f1(hits[l], predicted[l] + truth[l]);
    all_hits += hits[l];
    all += predicted[l] + truth[l];
  }
  out.macro_f1 = sum / static_cast<double>(labels);
  out.micro_f1 = f1(all_hits, all);
}

/// What each row of probabilities should be: a label a row, or one a token that is answered.
std::vector<std::int32_t> truths(const TokenFile& file, RowSpan rows) {
  std::vector<std::int32_t> out;
  for (const std::int64_t r : rows) {
    if (file.token_labels.empty()) {
      out.push_back(file.labels[static_cast<std::size_t>(r)]);
      continue;
    }
    for (const std::int32_t label : file.token_labels_of(static_cast<std::size_t>(r))) {
      if (label != kNotAnswered) out.push_back(label);
    }
  }
  return out;
}

/// Micro F1 of spans; rows with a word that has no label do not count.
double entity_f1(const std::vector<std::int32_t>& predicted, const TokenFile& file, RowSpan rows) {
  SpanCounts counts;
  std::size_t next = 0;
  for (const std::int64_t r : rows) {
    const std::vector<std::int32_t> truth = truths(file, RowSpan(&r, 1));
    const std::span<const std::int32_t> said(predicted.data() + next, truth.size());
    next += truth.size();
    if (std::find(truth.begin(), truth.end(), -1) == truth.end()) count_spans(truth, said, counts);
  }
  return counts.f1();
}

/// Rows whose likeliest first and last token are both right.
void score_spans(const Predictions& predictions, const TokenFile& file, RowSpan rows, Scores& out) {
  const float* z = predictions.values.data();
  double right = 0;
  for (const std::int64_t r : rows) {
    const auto row = static_cast<std::size_t>(r);
    const std::size_t n = file.row(row).size();
    bool same = true;
    for (std::size_t side = 0; side < 2; ++side) {
      std::size_t best = 0;
      for (std::size_t t = 1; t < n; ++t) best = z[2 * t + side] > z[2 * best + side] ? t : best;
      same = same && static_cast<std::int32_t>(best) == file.spans[2 * row + side];
    }
    z += 2 * n;
    if (file.spans[2 * row] < 0) continue;
    ++out.rows;
    right += same ? 1 : 0;
  }
  if (out.rows > 0) out.accuracy = right / static_cast<double>(out.rows);
}

}  // namespace

Scores score(const Predictions& predictions, const TokenFile& file, RowSpan rows) {
  Scores out;
  out.loss = predictions.weight > 0 ? predictions.loss_sum / predictions.weight : 0;
  if (!file.spans.empty() && !predictions.values.empty()) {
    score_spans(predictions, file, rows, out);
    return out;
  }
  const auto labels = static_cast<std::size_t>(predictions.labels);
  if (labels == 0) {
    out.rows = static_cast<std::int64_t>(rows.size());
    if (predictions.likeliest && predictions.weight > 0)
      out.token_accuracy = *predictions.likeliest / predictions.weight;
    return out;
  }
  if (!file.targets.empty()) {
    score_label_sets(predictions, file, rows, out);
    return out;
  }
  std::vector<double> hits(labels, 0), predicted(labels, 0), truth(labels, 0);
  double right = 0;
  const std::vector<std::int32_t> wanted = truths(file, rows);
  std::vector<std::int32_t> said;
  for (std::size_t i = 0; i < wanted.size(); ++i) {
    const std::int32_t label = wanted[i];
    const auto p = predictions.probabilities.begin() + static_cast<std::ptrdiff_t>(i * labels);
    const auto best = static_cast<std::size_t>(std::max_element(p, p + static_cast<std::ptrdiff_t>(labels)) - p);
    said.push_back(static_cast<std::int32_t>(best));
    if (label < 0) continue;
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
  if (!file.token_labels.empty() && file.iob2) out.entity_f1 = entity_f1(said, file, rows);
  return out;
}

}  // namespace tailor::tune
