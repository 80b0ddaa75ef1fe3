#include "tune/classification_loss.h"

#include <ATen/ops/empty_like.h>

#include <algorithm>
#include <cmath>

namespace tailor::tune {

ClassificationLoss classification_loss(const at::Tensor& logits, std::span<const std::int32_t> labels, double smoothing,
                                       double denominator) {
  const std::int64_t width = logits.size(1);
  ClassificationLoss out;
  out.d_logits = at::empty_like(logits);
  for (std::size_t r = 0; r < labels.size(); ++r) {
    const float* z = logits.data_ptr<float>() + static_cast<std::int64_t>(r) * width;
    float* dz = out.d_logits.data_ptr<float>() + static_cast<std::int64_t>(r) * width;
    const double top = *std::max_element(z, z + width);
    double total = 0;
    double mean = 0;
    for (std::int64_t l = 0; l < width; ++l) {
      total += std::exp(z[l] - top);
      mean += z[l];
    }
    mean /= static_cast<double>(width);
    const double log_total = std::log(total) + top;
    const double loss = log_total - (1 - smoothing) * z[labels[r]] - smoothing * mean;
    if (std::isfinite(loss))
      out.loss_sum += loss;
    else
      out.bad_rows.push_back(r);
    for (std::int64_t l = 0; l < width; ++l) {
      const double target = (l == labels[r] ? 1 - smoothing : 0) + smoothing / static_cast<double>(width);
      dz[l] = static_cast<float>((std::exp(z[l] - log_total) - target) / denominator);
    }
  }
  return out;
}

std::vector<float> softmax_rows(const at::Tensor& logits) {
  const std::int64_t width = logits.size(1);
  std::vector<float> out(static_cast<std::size_t>(logits.numel()));
  for (std::int64_t r = 0; r < logits.size(0); ++r) {
    const float* z = logits.data_ptr<float>() + r * width;
    float* p = out.data() + r * width;
    const double top = *std::max_element(z, z + width);
    double total = 0;
    for (std::int64_t l = 0; l < width; ++l) total += std::exp(z[l] - top);
    for (std::int64_t l = 0; l < width; ++l) p[l] = static_cast<float>(std::exp(z[l] - top) / total);
  }
  return out;
}

}  // namespace tailor::tune
