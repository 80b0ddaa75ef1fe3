#pragma once
/// How far a candidate's probabilities can be trusted, and what follows: which answers to hand to a person.
/// Confidence = the probability of the predicted class. Pure functions; safe from several threads.

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "core/matrix.h"

namespace tailor {

std::vector<double> confidences(const Matrix& probabilities);  // the largest of each row

struct ReliabilityBin {
  double low = 0;  // confidence in (low, high]
  double high = 0;
  std::int64_t rows = 0;
  double mean_confidence = 0;  // 0 without rows
  double accuracy = 0;
};
/// The bins of expected_calibration_error (metrics.h).
std::vector<ReliabilityBin> reliability_bins(std::span<const int> truth, const Matrix& probabilities, int bins = 15);

/// "Answer only where confidence >= threshold, hand the rest to a person."
struct CoveragePoint {
  double threshold = 0;
  double coverage = 0;  // share of rows answered
  double accuracy = 0;  // among them
};
/// One point per distinct confidence, most confident first; the last answers everything. `points` > 0 thins the curve
/// to about that many points evenly spaced in coverage, always with the last. Rows of equal confidence stay together.
std::vector<CoveragePoint> risk_coverage(std::span<const int> truth, std::span<const int> predicted,
                                         std::span<const double> confidence, std::size_t points = 0);

/// Area under (1 - accuracy) over coverage, rows in order of confidence; 0 is perfect (Geifman et al. 2019, "AURC").
double area_under_risk_coverage(std::span<const int> truth, std::span<const int> predicted,
                                std::span<const double> confidence);

/// The point of largest coverage whose accuracy reaches the target: choose it on validation rows, use its threshold on
/// new ones. None where no threshold reaches it.
std::optional<CoveragePoint> threshold_for_accuracy(std::span<const int> truth, std::span<const int> predicted,
                                                    std::span<const double> confidence, double target_accuracy);

/// How well confidence tells right from wrong: area under the ROC curve, NaN where all are right or all wrong.
double confidence_auroc(std::span<const int> truth, std::span<const int> predicted, std::span<const double> confidence);

/// T > 0 that minimises the log loss of softmax(log p / T) on validation rows (Guo et al. 2017, temperature scaling);
/// T > 1 makes answers less sure. Searched in [0.05, 20]. Never changes which class is the largest. 1 without rows.
double fit_temperature(std::span<const int> truth, const Matrix& probabilities);
Matrix apply_temperature(const Matrix& probabilities, double temperature);

/// How messages that belong to no intent are caught, for data that has a label for them.
struct OutOfScope {
  std::int64_t rows = 0;         // of that label
  double recall = 0;             // caught among them
  double precision = 0;          // right among those called out of scope
  double in_scope_accuracy = 0;  // of all other rows
  double false_alarms = 0;       // share of in-scope rows called out of scope
};
OutOfScope out_of_scope(std::span<const int> truth, std::span<const int> predicted, int label);

}  // namespace tailor
