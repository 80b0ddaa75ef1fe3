#pragma once
/// Softmax cross-entropy with label smoothing over rows, with its gradient; shared by everything that ends in label
/// scores.

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>
#include <vector>

namespace tailor::tune {

struct ClassificationLoss {
  double loss_sum = 0;                // over the rows, not divided
  std::vector<std::size_t> bad_rows;  // places in `labels` whose loss is not a finite number (left out of loss_sum)
  at::Tensor d_logits;                // [R, L], gradient of loss_sum / denominator
};

/// loss = -(sum over l of q_l log softmax(z)_l), q = (1 - smoothing) one-hot + smoothing / L (Szegedy et al.,
/// arXiv:1512.00567). logits [R, L] f32 contiguous; labels in [0, L).
ClassificationLoss classification_loss(const at::Tensor& logits, std::span<const std::int32_t> labels, double smoothing,
                                       double denominator);

/// Softmax of each row, [R, L], in double inside.
std::vector<float> softmax_rows(const at::Tensor& logits);

}  // namespace tailor::tune
