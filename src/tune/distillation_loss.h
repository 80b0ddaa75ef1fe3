#pragma once
/// What a student learns from a teacher's probabilities and from the label, with its gradient. Hinton, Vinyals and
/// Dean, arXiv:1503.02531:
///
///   loss = a T^2 KL(p_T || q_T) + (1 - a) CE(label, q)      q_T = softmax(z / T), q = q_1
///   p_T  = p^(1/T) / sum of p^(1/T)                         the teacher's softmax at T, from its probabilities p
///
/// z: the student's scores of the labels. A row without a label learns from the teacher alone (a = 1), one without a
/// teacher's answer from its label alone (a = 0).

#include "core/token_file.h"
#include "tune/classification_loss.h"
#include "tune/settings.h"
#include "tune/trainable_model.h"

namespace tailor::tune {

/// logits [R, L] f32 contiguous, of these rows of the file. Every row has a label or a teacher's answer.
ClassificationLoss distillation_loss(const at::Tensor& logits, const TokenFile& file, RowSpan rows,
                                     const DistillSettings& settings, double smoothing, double denominator);

}  // namespace tailor::tune
