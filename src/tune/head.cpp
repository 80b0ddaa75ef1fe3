#include "tune/head.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include <cmath>

#include "core/rng.h"
#include "tune/classification_loss.h"

namespace tailor::tune {

void add_head(ParameterSet& parameters, std::int64_t width, std::int64_t labels, double std, std::uint64_t seed) {
  Rng rng(seed, kHeadStream);
  at::Tensor weight = at::empty({labels, width}, at::kFloat);
  for (float *p = weight.data_ptr<float>(), *end = p + weight.numel(); p != end; ++p)
    *p = static_cast<float>(std * rng.normal());
  parameters.add(kHeadWeight, weight, {.decay = true, .head = true});
  parameters.add(kHeadBias, at::zeros({labels}, at::kFloat), {.decay = false, .head = true});
}

LinearSpec bind_head(const ParameterSet& parameters) {
  LinearSpec head;
  const Parameter& weight = parameters.at(kHeadWeight);
  const Parameter& bias = parameters.at(kHeadBias);
  head.weight = {weight.value, weight.grad};
  head.bias = {bias.value, bias.grad};
  return head;
}

std::uint64_t dropout_seed(const StepContext& context) {
  Rng rng(context.seed, kDropoutStream);
  rng.set_counter(static_cast<std::uint64_t>(context.step) * 65536 + static_cast<std::uint64_t>(context.micro_batch));
  return rng.bits() | 1;
}

std::vector<std::int32_t> labels_of(const TokenFile& file, RowSpan rows) {
  std::vector<std::int32_t> labels;
  labels.reserve(rows.size());
  for (const std::int64_t r : rows) labels.push_back(file.labels[static_cast<std::size_t>(r)]);
  return labels;
}

void add_predictions(const at::Tensor& logits, const TokenFile& file, RowSpan rows, Predictions& out) {
  const std::vector<float> p = softmax_rows(logits);
  const auto width = static_cast<std::size_t>(logits.size(1));
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const std::int32_t label = file.labels[static_cast<std::size_t>(rows[i])];
    if (label < 0) continue;
    out.loss_sum -= std::log(std::max(static_cast<double>(p[i * width + static_cast<std::size_t>(label)]), 1e-30));
    out.weight += 1;
  }
  out.probabilities.insert(out.probabilities.end(), p.begin(), p.end());
}

}  // namespace tailor::tune
