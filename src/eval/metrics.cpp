#include "eval/metrics.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "core/result.h"

namespace tailor {
namespace {

[[noreturn]] void refuse(std::string message) {
  throw Exception({ErrorCode::kInvalidArgument, std::move(message), ""});
}

void check_labels(std::span<const int> truth, std::span<const int> predicted, int classes) {
  if (truth.size() != predicted.size()) {
    refuse(fmt::format("cannot score {} predictions against {} true labels", predicted.size(), truth.size()));
  }
  for (std::size_t i = 0; i < truth.size(); ++i) {
    if (truth[i] < 0 || truth[i] >= classes || predicted[i] < kNoAnswer || predicted[i] >= classes) {
      refuse(fmt::format("row {}: true label {} and predicted label {} must be class numbers below {}", i, truth[i],
                         predicted[i], classes));
    }
  }
}

void check_probabilities(std::span<const int> truth, const Matrix& probabilities) {
  if (truth.size() != probabilities.rows) {
    refuse(
        fmt::format("cannot score {} rows of probabilities against {} true labels", probabilities.rows, truth.size()));
  }
  for (std::size_t i = 0; i < truth.size(); ++i) {
    if (truth[i] < 0 || static_cast<std::size_t>(truth[i]) >= probabilities.cols) {
      refuse(fmt::format("row {}: true label {} must be a class number below {}", i, truth[i], probabilities.cols));
    }
  }
}

double ratio(double numerator, double denominator) {
  return denominator > 0 ? numerator / denominator : 0.0;
}

// scikit-learn computes F1 from the counts, not from precision and recall.
PrecisionRecallF1 scores_of(std::int64_t hits, std::int64_t truths, std::int64_t predicted) {
  const auto h = static_cast<double>(hits);
  const auto t = static_cast<double>(truths);
  const auto p = static_cast<double>(predicted);
  return {ratio(h, p), ratio(h, t), ratio(2 * h, t + p)};
}

}  // namespace

ConfusionMatrix confusion_matrix(std::span<const int> truth, std::span<const int> predicted, int classes) {
  check_labels(truth, predicted, classes);
  const auto k = static_cast<std::size_t>(classes);
  ConfusionMatrix c{classes, std::vector<std::int64_t>(k * k), std::vector<std::int64_t>(k)};
  for (std::size_t i = 0; i < truth.size(); ++i) {
    const auto t = static_cast<std::size_t>(truth[i]);
    if (predicted[i] == kNoAnswer) {
      ++c.unanswered[t];
    } else {
      ++c.counts[t * k + static_cast<std::size_t>(predicted[i])];
    }
  }
  return c;
}

void Tally::reset(int classes) {
  const auto k = static_cast<std::size_t>(classes);
  rows = correct = 0;
  hits.assign(k, 0);
  truths.assign(k, 0);
  predicted.assign(k, 0);
}

Tally tally(std::span<const int> truth, std::span<const int> predicted, int classes) {
  check_labels(truth, predicted, classes);
  Tally t(classes);
  for (std::size_t i = 0; i < truth.size(); ++i) t.add(truth[i], predicted[i]);
  return t;
}

Tally tally(const ConfusionMatrix& c) {
  Tally t(c.classes);
  for (int i = 0; i < c.classes; ++i) {
    const auto row = static_cast<std::size_t>(i);
    for (int j = 0; j < c.classes; ++j) {
      t.truths[row] += c.at(i, j);
      t.predicted[static_cast<std::size_t>(j)] += c.at(i, j);
    }
    t.truths[row] += c.unanswered[row];
    t.hits[row] = c.at(i, i);
    t.correct += t.hits[row];
    t.rows += t.truths[row];
  }
  return t;
}

double accuracy(const Tally& t) {
  return ratio(static_cast<double>(t.correct), static_cast<double>(t.rows));
}

std::vector<ClassScore> class_scores(const Tally& t) {
  std::vector<ClassScore> out(t.truths.size());
  for (std::size_t c = 0; c < out.size(); ++c) {
    static_cast<PrecisionRecallF1&>(out[c]) = scores_of(t.hits[c], t.truths[c], t.predicted[c]);
    out[c].support = t.truths[c];
    out[c].predicted = t.predicted[c];
  }
  return out;
}

PrecisionRecallF1 macro_average(const Tally& t) {
  PrecisionRecallF1 sum;
  double n = 0;
  for (std::size_t c = 0; c < t.truths.size(); ++c) {
    if (t.truths[c] == 0 && t.predicted[c] == 0) continue;
    const auto s = scores_of(t.hits[c], t.truths[c], t.predicted[c]);
    sum.precision += s.precision;
    sum.recall += s.recall;
    sum.f1 += s.f1;
    ++n;
  }
  return {ratio(sum.precision, n), ratio(sum.recall, n), ratio(sum.f1, n)};
}

PrecisionRecallF1 weighted_average(const Tally& t) {
  PrecisionRecallF1 sum;
  for (std::size_t c = 0; c < t.truths.size(); ++c) {
    const auto s = scores_of(t.hits[c], t.truths[c], t.predicted[c]);
    const auto w = static_cast<double>(t.truths[c]);
    sum.precision += w * s.precision;
    sum.recall += w * s.recall;
    sum.f1 += w * s.f1;
  }
  const auto n = static_cast<double>(t.rows);
  return {ratio(sum.precision, n), ratio(sum.recall, n), ratio(sum.f1, n)};
}

PrecisionRecallF1 micro_average(const Tally& t) {
  return scores_of(t.correct, t.rows, std::accumulate(t.predicted.begin(), t.predicted.end(), std::int64_t{0}));
}

double balanced_accuracy(const Tally& t) {
  double sum = 0;
  double n = 0;
  for (std::size_t c = 0; c < t.truths.size(); ++c) {
    if (t.truths[c] == 0) continue;
    sum += static_cast<double>(t.hits[c]) / static_cast<double>(t.truths[c]);
    ++n;
  }
  return ratio(sum, n);
}

// Both coefficients see "no answer" as one more predicted class that is nobody's truth.
double matthews_correlation(const ConfusionMatrix& c) {
  const Tally t = tally(c);
  const auto n = static_cast<double>(t.rows);
  double both = 0;
  double truth_squares = 0;
  double predicted_squares = 0;
  double unanswered = n;
  for (std::size_t i = 0; i < t.truths.size(); ++i) {
    const auto a = static_cast<double>(t.truths[i]);
    const auto b = static_cast<double>(t.predicted[i]);
    both += a * b;
    truth_squares += a * a;
    predicted_squares += b * b;
    unanswered -= b;
  }
  predicted_squares += unanswered * unanswered;
  const double denominator = (n * n - predicted_squares) * (n * n - truth_squares);
  return denominator == 0 ? 0.0 : (static_cast<double>(t.correct) * n - both) / std::sqrt(denominator);
}

double cohen_kappa(const ConfusionMatrix& c) {
  const Tally t = tally(c);
  const auto n = static_cast<double>(t.rows);
  if (n == 0) return std::numeric_limits<double>::quiet_NaN();
  double expected_agreement = 0;
  for (std::size_t i = 0; i < t.truths.size(); ++i) {
    expected_agreement += static_cast<double>(t.truths[i]) * static_cast<double>(t.predicted[i]) / n;
  }
  const double expected_mistakes = n - expected_agreement;
  if (expected_mistakes == 0) return std::numeric_limits<double>::quiet_NaN();
  return 1.0 - (n - static_cast<double>(t.correct)) / expected_mistakes;
}

double expected_cost(const ConfusionMatrix& c, std::span<const double> costs) {
  const auto k = static_cast<std::size_t>(c.classes);
  if (costs.size() != k * k)
    refuse(fmt::format("a cost matrix of {} classes has {} entries, not {}", k, k * k, costs.size()));
  double sum = 0;
  double rows = 0;
  for (std::size_t t = 0; t < k; ++t) {
    const auto row = costs.subspan(t * k, k);
    for (std::size_t p = 0; p < k; ++p) {
      sum += row[p] * static_cast<double>(c.counts[t * k + p]);
      rows += static_cast<double>(c.counts[t * k + p]);
    }
    sum += *std::max_element(row.begin(), row.end()) * static_cast<double>(c.unanswered[t]);
    rows += static_cast<double>(c.unanswered[t]);
  }
  return ratio(sum, rows);
}

std::vector<int> argmax_rows(const Matrix& probabilities) {
  std::vector<int> out(probabilities.rows);
  for (std::size_t i = 0; i < out.size(); ++i) {
    const auto row = probabilities.row(i);
    out[i] = static_cast<int>(std::max_element(row.begin(), row.end()) - row.begin());
  }
  return out;
}

double log_loss(std::span<const int> truth, const Matrix& probabilities) {
  check_probabilities(truth, probabilities);
  constexpr double kEps = std::numeric_limits<double>::epsilon();
  double sum = 0;
  for (std::size_t i = 0; i < truth.size(); ++i) {
    const double p = probabilities.row(i)[static_cast<std::size_t>(truth[i])];
    sum -= std::log(std::clamp(p, kEps, 1.0 - kEps));
  }
  return ratio(sum, static_cast<double>(truth.size()));
}

double brier_score(std::span<const int> truth, const Matrix& probabilities) {
  check_probabilities(truth, probabilities);
  double sum = 0;
  for (std::size_t i = 0; i < truth.size(); ++i) {
    const auto row = probabilities.row(i);
    for (std::size_t c = 0; c < row.size(); ++c) {
      const double d = static_cast<double>(row[c]) - (static_cast<std::size_t>(truth[i]) == c ? 1.0 : 0.0);
      sum += d * d;
    }
  }
  return ratio(sum, static_cast<double>(truth.size())) * (probabilities.cols == 2 ? 0.5 : 1.0);
}

double expected_calibration_error(std::span<const int> truth, const Matrix& probabilities, int bins) {
  check_probabilities(truth, probabilities);
  if (bins < 1) refuse(fmt::format("calibration needs at least one bin, not {}", bins));
  const auto predicted = argmax_rows(probabilities);
  std::vector<double> gap(static_cast<std::size_t>(bins));  // sum of (confidence - correct)
  for (std::size_t i = 0; i < truth.size(); ++i) {
    const double confidence = probabilities.row(i)[static_cast<std::size_t>(predicted[i])];
    const int bin = std::clamp(static_cast<int>(std::ceil(confidence * bins)) - 1, 0, bins - 1);
    gap[static_cast<std::size_t>(bin)] += confidence - (predicted[i] == truth[i] ? 1.0 : 0.0);
  }
  double sum = 0;
  for (const double g : gap) sum += std::abs(g);
  return ratio(sum, static_cast<double>(truth.size()));
}

double top_k_accuracy(std::span<const int> truth, const Matrix& probabilities, int k) {
  check_probabilities(truth, probabilities);
  double found = 0;
  for (std::size_t i = 0; i < truth.size(); ++i) {
    const auto row = probabilities.row(i);
    const auto t = static_cast<std::size_t>(truth[i]);
    int better = 0;
    for (std::size_t c = 0; c < row.size(); ++c) better += row[c] > row[t] || (row[c] == row[t] && c < t);
    found += better < k;
  }
  return ratio(found, static_cast<double>(truth.size()));
}

double roc_auc(std::span<const int> positive, std::span<const double> scores) {
  if (positive.size() != scores.size()) refuse("roc_auc: as many scores as labels are needed");
  std::vector<std::size_t> order(scores.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return scores[a] < scores[b]; });
  double wins = 0;  // pairs (positive, negative) in the right order
  double negatives = 0;
  double positives = 0;
  for (std::size_t i = 0; i < order.size();) {
    double tied_positives = 0;
    double tied_negatives = 0;
    const double value = scores[order[i]];
    for (; i < order.size() && scores[order[i]] == value; ++i)
      (positive[order[i]] ? tied_positives : tied_negatives) += 1;
    wins += tied_positives * (negatives + 0.5 * tied_negatives);
    positives += tied_positives;
    negatives += tied_negatives;
  }
  if (positives == 0 || negatives == 0) return std::numeric_limits<double>::quiet_NaN();
  return wins / (positives * negatives);
}

double average_precision(std::span<const int> positive, std::span<const double> scores) {
  if (positive.size() != scores.size()) refuse("average_precision: as many scores as labels are needed");
  std::vector<std::size_t> order(scores.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return scores[a] > scores[b]; });
  double sum = 0;
  double hits = 0;
  for (std::size_t i = 0; i < order.size();) {
    const double value = scores[order[i]];
    const double before = hits;
    for (; i < order.size() && scores[order[i]] == value; ++i) hits += positive[order[i]] ? 1 : 0;
    sum += (hits - before) * hits / static_cast<double>(i);
  }
  return ratio(sum, hits);
}

}  // namespace tailor
