#pragma once
/// The figures behind the report's charts, from predictions alone. Pure. Rows without a known truth are passed over.

#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "fit/predictions.h"

namespace tailor {

double confidence_of(const Predictions& predictions,
                     std::size_t i);  // probability of the predicted label; 0 without answer

/// Bins (low, high] of equal width over the probability of the predicted label, as expected_calibration_error().
struct ReliabilityBin {
  double low = 0, high = 0;
  std::size_t rows = 0;
  double confidence = 0;  // mean
  double accuracy = 0;
};
std::vector<ReliabilityBin> reliability_bins(const Predictions& predictions, int bins);

/// The rows answered at a threshold of confidence, the least certain first handed to a person. Rows of equal confidence
/// go together. From everything answered down; at most `points` of them.
struct CoveragePoint {
  double threshold = 0;  // rows of this confidence or more are answered
  double answered = 0;   // share of rows, (0, 1]
  double accuracy = 0;   // of those answered
};
std::vector<CoveragePoint> coverage_curve(const Predictions& predictions, std::size_t points = 240);

/// "Hand x % to a person": the threshold that hands over `wanted` of `choose` (validation rows, or the test rows
/// themselves where there are none), and what it gives on the test rows.
struct HandOver {
  double wanted = 0;
  double threshold = 0;
  double handed = 0;              // share of test rows below the threshold
  double accuracy = 0;            // of the rest; 0 where nothing is left
  double wrong_per_thousand = 0;  // answers given and wrong, of a thousand messages
};
std::vector<HandOver> hand_over(const Predictions& test, const Predictions& choose, std::span<const double> wanted);

struct ConfusedPair {
  int truth = 0, predicted = 0;
  std::size_t rows = 0;
  std::size_t support = 0;  // rows of the true class
};
std::vector<ConfusedPair> confused_pairs(const Predictions& predictions);  // most rows first

/// Positions of wrong answers, the most certain first: those tell most about labels and about the method.
std::vector<std::size_t> wrong_rows(const Predictions& predictions);

}  // namespace tailor
