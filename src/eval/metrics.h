#pragma once
/// Scores of single-label classification, equal to scikit-learn's with zero_division=0 (tests: 1e-9).
///
/// Labels are class numbers 0 … classes-1. A prediction of kNoAnswer (-1) stands for "the method gave no usable
/// answer": it is a wrong answer for its true class and belongs to no predicted class. Macro and weighted averages run
/// over the classes that occur in the truth or among the predictions, which is scikit-learn's default. Everything here
/// is pure and safe to call from several threads. Lengths that differ or labels out of range throw
/// Exception{kInvalidArgument}: they are a caller's mistake.

#include <cstdint>
#include <span>
#include <vector>

#include "core/matrix.h"

namespace tailor {

inline constexpr int kNoAnswer = -1;

/// counts[t * classes + p]: rows whose true class is t and whose predicted class is p.
struct ConfusionMatrix {
  int classes = 0;
  std::vector<std::int64_t> counts;
  std::vector<std::int64_t> unanswered;  // per true class: rows with prediction kNoAnswer

  std::int64_t at(int truth, int predicted) const {
    return counts[static_cast<std::size_t>(truth) * static_cast<std::size_t>(classes) +
                  static_cast<std::size_t>(predicted)];
  }
};

ConfusionMatrix confusion_matrix(std::span<const int> truth, std::span<const int> predicted, int classes);

/// Everything that accuracy, precision, recall and F1 need; cheaper than a confusion matrix, so resampling works on it.
struct Tally {
  std::int64_t rows = 0;
  std::int64_t correct = 0;
  std::vector<std::int64_t> hits;       // [classes] true class = predicted class = c
  std::vector<std::int64_t> truths;     // [classes] true class = c
  std::vector<std::int64_t> predicted;  // [classes] predicted class = c

  Tally() = default;
  explicit Tally(int classes) { reset(classes); }
  void reset(int classes);
  void add(int truth, int prediction) {  // unchecked
    ++rows;
    ++truths[static_cast<std::size_t>(truth)];
    if (prediction >= 0) ++predicted[static_cast<std::size_t>(prediction)];
    if (truth == prediction) {
      ++hits[static_cast<std::size_t>(truth)];
      ++correct;
    }
  }
};

Tally tally(std::span<const int> truth, std::span<const int> predicted, int classes);
Tally tally(const ConfusionMatrix& confusion);

struct PrecisionRecallF1 {
  double precision = 0;
  double recall = 0;
  double f1 = 0;
};

struct ClassScore : PrecisionRecallF1 {
  std::int64_t support = 0;    // rows of this true class
  std::int64_t predicted = 0;  // rows predicted as this class
};

double accuracy(const Tally& t);                        // 0 for no rows
std::vector<ClassScore> class_scores(const Tally& t);   // [classes]
PrecisionRecallF1 macro_average(const Tally& t);        // plain mean over the classes that occur
PrecisionRecallF1 weighted_average(const Tally& t);     // mean weighted by support
PrecisionRecallF1 micro_average(const Tally& t);        // pooled counts; recall = accuracy
double balanced_accuracy(const Tally& t);               // mean recall over the classes in the truth
double matthews_correlation(const ConfusionMatrix& c);  // multiclass (Gorodkin 2004); 0 where undefined
double cohen_kappa(const ConfusionMatrix& c);           // NaN where undefined, as scikit-learn

/// Mean of costs[t * classes + p]. A row without an answer costs as much as the dearest mistake of its true class.
double expected_cost(const ConfusionMatrix& c, std::span<const double> costs);

// --- of probabilities: one row per example, one column per class, rows summing to 1 --------------------------------

std::vector<int> argmax_rows(const Matrix& probabilities);  // ties go to the lower class

/// -mean(log p_true), p clipped to [eps, 1 - eps], eps = 2^-52 as scikit-learn does for doubles.
double log_loss(std::span<const int> truth, const Matrix& probabilities);
/// mean over rows of sum over classes (p - [class is true])^2: 0 … 2. For two classes scikit-learn halves it; we do
/// too.
double brier_score(std::span<const int> truth, const Matrix& probabilities);
/// Expected calibration error of the highest probability over `bins` bins of equal width, (lower, upper], weighted by
/// rows (Guo et al. 2017, arXiv:1706.04599, eq. 3).
double expected_calibration_error(std::span<const int> truth, const Matrix& probabilities, int bins = 15);
/// Share of rows whose true class is among the k most probable; ties go to the lower class.
double top_k_accuracy(std::span<const int> truth, const Matrix& probabilities, int k);

// --- of a yes/no question with a score -----------------------------------------------------------------------------

/// Area under the ROC curve (ties count half). NaN when only one of the two classes occurs.
double roc_auc(std::span<const int> positive, std::span<const double> scores);
/// Sum over thresholds of (recall step) * precision, no interpolation. 0 without positives.
double average_precision(std::span<const int> positive, std::span<const double> scores);

}  // namespace tailor
