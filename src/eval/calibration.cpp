#include "eval/calibration.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/result.h"
#include "eval/metrics.h"

namespace tailor {
namespace {

void check_sizes(std::size_t a, std::size_t b, std::size_t c) {
  if (a != b || a != c) {
    throw Exception({ErrorCode::kInvalidArgument,
                     fmt::format("{} true labels, {} predictions and {} confidences do not belong together", a, b, c),
                     ""});
  }
}

double share(double part, double whole) {
  return whole > 0 ? part / whole : 0.0;
}

/// Zero and below-rounding probabilities stay far away from the others at every temperature.
double safe_log(float p) {
  return std::log(std::max(static_cast<double>(p), 1e-30));
}

}  // namespace

std::vector<double> confidences(const Matrix& probabilities) {
  std::vector<double> out(probabilities.rows);
  for (std::size_t i = 0; i < out.size(); ++i) {
    const auto row = probabilities.row(i);
    out[i] = row.empty() ? 0.0 : static_cast<double>(*std::ranges::max_element(row));
  }
  return out;
}

std::vector<ReliabilityBin> reliability_bins(std::span<const int> truth, const Matrix& probabilities, int bins) {
  const auto predicted = argmax_rows(probabilities);
  const auto confidence = confidences(probabilities);
  check_sizes(truth.size(), predicted.size(), confidence.size());
  std::vector<ReliabilityBin> out(static_cast<std::size_t>(std::max(bins, 1)));
  const auto n = static_cast<double>(out.size());
  for (std::size_t b = 0; b < out.size(); ++b) {
    out[b].low = static_cast<double>(b) / n;
    out[b].high = static_cast<double>(b + 1) / n;
  }
  for (std::size_t i = 0; i < truth.size(); ++i) {
    const double position = std::clamp(std::ceil(confidence[i] * n) - 1.0, 0.0, n - 1.0);
    ReliabilityBin& bin = out[static_cast<std::size_t>(position)];
    ++bin.rows;
    bin.mean_confidence += confidence[i];
    bin.accuracy += predicted[i] == truth[i];
  }
  for (ReliabilityBin& bin : out) {
    bin.mean_confidence = share(bin.mean_confidence, static_cast<double>(bin.rows));
    bin.accuracy = share(bin.accuracy, static_cast<double>(bin.rows));
  }
  return out;
}

std::vector<CoveragePoint> risk_coverage(std::span<const int> truth, std::span<const int> predicted,
                                         std::span<const double> confidence, std::size_t points) {
  check_sizes(truth.size(), predicted.size(), confidence.size());
  std::vector<std::size_t> order(truth.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return confidence[a] > confidence[b]; });
  std::vector<CoveragePoint> out;
  const auto n = static_cast<double>(order.size());
  double right = 0;
  for (std::size_t i = 0; i < order.size(); ++i) {
    right += truth[order[i]] == predicted[order[i]];
    if (i + 1 < order.size() && confidence[order[i + 1]] == confidence[order[i]]) continue;
    const auto answered = static_cast<double>(i + 1);
    out.push_back({confidence[order[i]], answered / n, right / answered});
  }
  if (points == 0 || out.size() <= points) return out;
  std::vector<CoveragePoint> thin;
  double next = 1.0 / static_cast<double>(points);
  for (std::size_t i = 0; i < out.size(); ++i) {
    if (out[i].coverage + 1e-12 < next && i + 1 < out.size()) continue;
    thin.push_back(out[i]);
    next = std::floor(out[i].coverage * static_cast<double>(points) + 1e-9) / static_cast<double>(points) +
           1.0 / static_cast<double>(points);
  }
  return thin;
}

double area_under_risk_coverage(std::span<const int> truth, std::span<const int> predicted,
                                std::span<const double> confidence) {
  // The mean over rows of the risk among rows at least as sure: ties are counted at the end of their run.
  double area = 0;
  double before = 0;
  for (const CoveragePoint& p : risk_coverage(truth, predicted, confidence)) {
    area += (p.coverage - before) * (1.0 - p.accuracy);
    before = p.coverage;
  }
  return area;
}

std::optional<CoveragePoint> threshold_for_accuracy(std::span<const int> truth, std::span<const int> predicted,
                                                    std::span<const double> confidence, double target_accuracy) {
  std::optional<CoveragePoint> best;
  for (const CoveragePoint& p : risk_coverage(truth, predicted, confidence)) {
    if (p.accuracy >= target_accuracy) best = p;  // coverage rises along the curve
  }
  return best;
}

double confidence_auroc(std::span<const int> truth, std::span<const int> predicted,
                        std::span<const double> confidence) {
  check_sizes(truth.size(), predicted.size(), confidence.size());
  std::vector<int> right(truth.size());
  for (std::size_t i = 0; i < right.size(); ++i) right[i] = truth[i] == predicted[i];
  return roc_auc(right, confidence);
}

double fit_temperature(std::span<const int> truth, const Matrix& probabilities) {
  check_sizes(truth.size(), probabilities.rows, probabilities.rows);
  if (truth.empty()) return 1.0;
  const std::size_t k = probabilities.cols;
  std::vector<double> logs(probabilities.data.size());
  std::transform(probabilities.data.begin(), probabilities.data.end(), logs.begin(), safe_log);
  // The log loss is convex in b = 1 / T with slope sum_i (E_p[log p] - log p_true); bisection on its sign.
  const auto slope = [&](double b) {
    double sum = 0;
    for (std::size_t i = 0; i < truth.size(); ++i) {
      const double* l = logs.data() + i * k;
      const double top = *std::max_element(l, l + k);
      double total = 0;
      double mean = 0;
      for (std::size_t c = 0; c < k; ++c) {
        const double e = std::exp(b * (l[c] - top));
        total += e;
        mean += e * l[c];
      }
      sum += mean / total - l[static_cast<std::size_t>(truth[i])];
    }
    return sum;
  };
  double low = 0.05;
  double high = 20.0;
  if (slope(low) >= 0) return 1.0 / low;
  if (slope(high) <= 0) return 1.0 / high;
  for (int i = 0; i < 50 && high - low > 1e-10 * low; ++i) {
    const double middle = std::sqrt(low * high);
    (slope(middle) < 0 ? low : high) = middle;
  }
  return 1.0 / std::sqrt(low * high);
}

Matrix apply_temperature(const Matrix& probabilities, double temperature) {
  if (!(temperature > 0)) {
    throw Exception(
        {ErrorCode::kInvalidArgument, fmt::format("a temperature must be above 0, not {}", temperature), ""});
  }
  Matrix out(probabilities.rows, probabilities.cols);
  std::vector<double> p(probabilities.cols);
  for (std::size_t i = 0; i < out.rows; ++i) {
    const auto from = probabilities.row(i);
    const double top = from.empty() ? 0.0 : safe_log(*std::ranges::max_element(from));
    double sum = 0;
    for (std::size_t c = 0; c < p.size(); ++c) {
      p[c] = from[c] > 0 ? std::exp((safe_log(from[c]) - top) / temperature) : 0.0;
      sum += p[c];
    }
    for (std::size_t c = 0; c < p.size(); ++c) out.row(i)[c] = static_cast<float>(share(p[c], sum));
  }
  return out;
}

OutOfScope out_of_scope(std::span<const int> truth, std::span<const int> predicted, int label) {
  check_sizes(truth.size(), predicted.size(), truth.size());
  double outside = 0, caught = 0, called = 0, inside = 0, inside_right = 0;
  for (std::size_t i = 0; i < truth.size(); ++i) {
    called += predicted[i] == label;
    if (truth[i] == label) {
      ++outside;
      caught += predicted[i] == label;
    } else {
      ++inside;
      inside_right += predicted[i] == truth[i];
    }
  }
  return {static_cast<std::int64_t>(outside), share(caught, outside), share(caught, called),
          share(inside_right, inside), share(called - caught, inside)};
}

}  // namespace tailor
