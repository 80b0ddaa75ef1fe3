#pragma once
/// What the scores of an encoder's head mean: how many there are, their loss with its gradient, and the answers. The
/// models (encoder_classifier.h, head_model.h) pool and multiply; the objective alone knows the task.

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "core/result.h"
#include "core/token_file.h"
#include "tune/classification_loss.h"
#include "tune/settings.h"
#include "tune/trainable_model.h"

namespace tailor::tune {

/// Threads: const calls are safe from several threads.
class Objective {
 public:
  virtual ~Objective() = default;
  virtual std::int64_t outputs() const = 0;  // of the head
  /// Which states the head reads: places in the tokens of these rows, one row after another; nullopt: one vector a row,
  /// pooled. What follows has a row of scores for each of them ("units").
  virtual std::optional<std::vector<std::int64_t>> scored_tokens(RowSpan) const { return std::nullopt; }
  /// Sum of the loss weights of these rows.
  virtual double weight(RowSpan rows) const { return static_cast<double>(rows.size()); }
  /// scores [units, outputs], f32, contiguous; the gradient is that of loss_sum / denominator. bad_rows are places in
  /// `rows`.
  virtual ClassificationLoss loss(const at::Tensor& scores, RowSpan rows, double denominator) const = 0;
  /// Appends the answers and adds the loss (without smoothing) of the units that have a target.
  virtual void answer(const at::Tensor& scores, RowSpan rows, Predictions& out) const = 0;
};

/// By job.task:
///   sequence-classification  softmax cross-entropy over n_labels; method distill: tune/distillation_loss.h
///   regression               (score - target)^2, one output (torch.nn.MSELoss)
///   multi-label              mean over the labels of the binary cross-entropy of sigmoid(score)
///                            (torch.nn.BCEWithLogitsLoss); answers are the sigmoids
///   token-classification     softmax cross-entropy at the tokens with a label (core/token_file.h, token_labels), all
///   of
///                            one weight
///   span-extraction          mean of the softmax cross-entropies of the first and of the last token of the answer over
///                            all tokens of the row; outputs: a score of being the first, and of being the last
/// Borrows the file.
std::unique_ptr<Objective> make_objective(const Job& job, const TokenFile& file);

/// Whether the file holds what the task learns: labels or targets of every training row, and as many as fit the task.
Status check_targets(const Job& job, const TokenFile& file);

}  // namespace tailor::tune
