#pragma once
/// The task metric that decides which weights are kept.

#include "core/token_file.h"
#include "tune/settings.h"
#include "tune/trainable_model.h"

namespace tailor::tune {

struct Scores {
  double loss = 0;      // mean over the loss weights
  double accuracy = 0;  // of rows (token-classification: words) with a label or span; 0 where the task has no labels
  double macro_f1 = 0;  // mean F1 over the labels that occur in truth or prediction (as scikit-learn's f1_score, macro)
  double micro_f1 = 0;  // multi-label: F1 over all pairs of row and label
  double entity_f1 = 0;  // token-classification: micro F1 of spans that are right in type and both borders (as seqeval)
  std::int64_t rows = 0;

  /// Larger is better: accuracy, macro_f1, micro_f1, entity_f1, or -loss.
  double value(Metric metric) const;
};

/// Predictions for `rows` of the file; the prediction is the first label of the highest probability. With targets
/// (multi-label) every label of at least 0.5 is predicted, and the accuracy is the share of rows that are wholly right.
Scores score(const Predictions& predictions, const TokenFile& file, RowSpan rows);

}  // namespace tailor::tune
