#pragma once
/// The task metric that decides which weights are kept.

#include <optional>

#include "core/token_file.h"
#include "tune/settings.h"
#include "tune/trainable_model.h"

namespace tailor::tune {

struct Scores {
  double loss = 0;                  // mean over the loss weights
  std::optional<double> accuracy;   // of rows (token-classification: words) with a label or span
  std::optional<double> macro_f1;   // mean F1 over the labels in truth or prediction (scikit-learn's f1_score, macro)
  std::optional<double> micro_f1;   // multi-label: F1 over all pairs of row and label
  std::optional<double> entity_f1;  // token-classification: micro F1 of spans right in type and both borders (seqeval)
  /// causal-lm: share of the learnt tokens, each after the true ones before it, than which none was held likelier.
  std::optional<double> token_accuracy;
  std::int64_t rows = 0;  // that were judged

  /// Larger is better: accuracy, macro_f1, micro_f1, entity_f1 (0 where the task has none), or -loss.
  double value(Metric metric) const;
};

/// Predictions for `rows` of the file; the prediction is the first label of the highest probability. With targets
/// (multi-label) every label of at least 0.5 is predicted, and the accuracy is the share of rows that are wholly right.
Scores score(const Predictions& predictions, const TokenFile& file, RowSpan rows);

}  // namespace tailor::tune
