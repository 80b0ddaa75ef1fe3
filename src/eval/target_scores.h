#pragma once
/// Scores of predicted numbers (regression) and of predicted sets of labels, with intervals. Equal to SciPy's and
/// scikit-learn's (tests: 1e-9; zero_division=0). Lengths that differ throw Exception{kInvalidArgument}.

#include <cstdint>
#include <span>

#include "core/json.h"
#include "eval/intervals.h"

namespace tailor {

/// Square root of the mean squared error; 0 for no rows.
double root_mean_squared_error(std::span<const double> truth, std::span<const double> predicted);
double mean_absolute_error(std::span<const double> truth, std::span<const double> predicted);
/// Pearson's correlation; 0 where one side does not vary (SciPy: NaN).
double pearson_correlation(std::span<const double> a, std::span<const double> b);
/// Pearson's correlation of the ranks; equal values share the mean of their ranks.
double spearman_correlation(std::span<const double> a, std::span<const double> b);

struct NumberScores {
  Interval rmse, mae, pearson, spearman;
};
Json to_json(const NumberScores& scores);
NumberScores bootstrap_numbers(std::span<const double> truth, std::span<const double> predicted,
                               const BootstrapOptions& options = {});

/// Row-major [rows, labels], 1 where a label holds (truth) or is predicted.
struct LabelSets {
  std::size_t labels = 0;
  std::span<const std::uint8_t> truth, predicted;
  std::size_t rows() const { return labels == 0 ? 0 : truth.size() / labels; }
};
double micro_f1(const LabelSets& sets);         // over all pairs of row and label
double macro_f1(const LabelSets& sets);         // mean over all labels
double subset_accuracy(const LabelSets& sets);  // rows whose set is wholly right

struct LabelSetScores {
  Interval micro_f1, macro_f1, subset_accuracy;
};
Json to_json(const LabelSetScores& scores);
/// Percentile bootstrap over rows, as bootstrap_scores().
LabelSetScores bootstrap_label_sets(const LabelSets& sets, const BootstrapOptions& options = {});

/// The threshold with the highest micro F1 of [rows, labels] probabilities (a label is predicted at or above it):
/// among 0.01, 0.02 … 0.99, the one nearest to 0.5 of those that are best. 0.5 for no rows.
double best_threshold(std::span<const float> probabilities, std::span<const std::uint8_t> truth, std::size_t labels);

}  // namespace tailor
