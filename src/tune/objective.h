#pragma once
/// What the scores of an encoder's head mean: how many there are, their loss with its gradient, and the answers. The
/// models (encoder_classifier.h, head_model.h) pool and multiply; the objective alone knows the task.

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>

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
  /// scores [rows, outputs], f32, contiguous; the gradient is that of loss_sum / denominator.
  virtual ClassificationLoss loss(const at::Tensor& scores, RowSpan rows, double denominator) const = 0;
  /// Appends the answers and adds the loss (without smoothing) of the rows that have a target.
  virtual void answer(const at::Tensor& scores, RowSpan rows, Predictions& out) const = 0;
};

/// By job.task:
///   sequence-classification  softmax cross-entropy over n_labels; method distill: tune/distillation_loss.h
///   regression               (score - target)^2, one output (torch.nn.MSELoss)
///   multi-label              mean over the labels of the binary cross-entropy of sigmoid(score)
///                            (torch.nn.BCEWithLogitsLoss); answers are the sigmoids
/// Borrows the file.
std::unique_ptr<Objective> make_objective(const Job& job, const TokenFile& file);

/// Whether the file holds what the task learns: labels or targets of every training row, and as many as fit the task.
Status check_targets(const Job& job, const TokenFile& file);

}  // namespace tailor::tune
