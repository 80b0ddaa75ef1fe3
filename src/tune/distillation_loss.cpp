#include "tune/distillation_loss.h"

#include <ATen/ops/empty_like.h>

#include <algorithm>
#include <cmath>
#include <vector>

namespace tailor::tune {
namespace {

/// log of softmax(z / T), in double.
std::vector<double> log_softmax(const float* z, std::size_t labels, double temperature) {
  std::vector<double> out(labels);
  const double top = *std::max_element(z, z + labels) / temperature;
  double total = 0;
  for (std::size_t l = 0; l < labels; ++l) total += std::exp(out[l] = z[l] / temperature - top);
  for (double& value : out) value -= std::log(total);
  return out;
}

std::vector<double> softened(std::span<const float> p, double temperature) {
  std::vector<double> out(p.size());
  double total = 0;
  for (std::size_t l = 0; l < p.size(); ++l) total += out[l] = std::pow(static_cast<double>(p[l]), 1 / temperature);
  for (double& value : out) value /= total;
  return out;
}

}  // namespace

ClassificationLoss distillation_loss(const at::Tensor& logits, const TokenFile& file, RowSpan rows,
                                     const DistillSettings& settings, double smoothing, double denominator) {
  const auto labels = static_cast<std::size_t>(logits.size(1));
  const double t = settings.temperature;
  ClassificationLoss out;
  out.d_logits = at::empty_like(logits);
  for (std::size_t r = 0; r < rows.size(); ++r) {
    const float* z = logits.data_ptr<float>() + r * labels;
    float* dz = out.d_logits.data_ptr<float>() + r * labels;
    const std::int32_t label = file.labels[static_cast<std::size_t>(rows[r])];
    const std::span<const float> teacher = file.soft_target(static_cast<std::size_t>(rows[r]));
    const double alpha = teacher.empty() ? 0 : label < 0 ? 1 : settings.alpha;
    std::vector<double> gradient(labels, 0);
    double loss = 0;
    if (alpha > 0) {
      const std::vector<double> p = softened(teacher, t), log_q = log_softmax(z, labels, t);
      for (std::size_t l = 0; l < labels; ++l) {
        if (p[l] > 0) loss += alpha * t * t * p[l] * (std::log(p[l]) - log_q[l]);
        gradient[l] += alpha * t * (std::exp(log_q[l]) - p[l]);
      }
    }
    if (alpha < 1) {
      const std::vector<double> log_q = log_softmax(z, labels, 1);
      for (std::size_t l = 0; l < labels; ++l) {
        const double target =
            (static_cast<std::int32_t>(l) == label ? 1 - smoothing : 0) + smoothing / static_cast<double>(labels);
        if (target > 0) loss -= (1 - alpha) * target * log_q[l];
        gradient[l] += (1 - alpha) * (std::exp(log_q[l]) - target);
      }
    }
    if (std::isfinite(loss))
      out.loss_sum += loss;
    else
      out.bad_rows.push_back(r);
    for (std::size_t l = 0; l < labels; ++l) dz[l] = static_cast<float>(gradient[l] / denominator);
  }
  return out;
}

}  // namespace tailor::tune
