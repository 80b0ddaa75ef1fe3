#include "tune/head.h"

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cmath>
#include <cstring>

#include "core/rng.h"
#include "core/safetensors.h"
#include "tune/classification_loss.h"

namespace tailor::tune {

namespace {

at::Tensor stored_head(const SafetensorsFile& file, const char* name, const std::vector<std::int64_t>& shape) {
  const SafeTensor tensor = file.get(name, "F32", shape.size()).value();
  if (tensor.shape != shape) {
    throw Exception({ErrorCode::kInvalidArgument,
                     fmt::format("{}: {} has shape [{}], this job needs [{}]", file.path().string(), name,
                                 fmt::join(tensor.shape, ", "), fmt::join(shape, ", ")),
                     "the head must come from the same base model and labels"});
  }
  at::Tensor value = at::empty(shape, at::kFloat);
  std::memcpy(value.data_ptr<float>(), tensor.bytes.data(), tensor.bytes.size());
  return value;
}

}  // namespace

void add_head(ParameterSet& parameters, std::int64_t width, std::int64_t labels, const Job& job) {
  at::Tensor weight = at::empty({labels, width}, at::kFloat);
  at::Tensor bias = at::zeros({labels}, at::kFloat);
  if (!job.head.empty()) {
    const SafetensorsFile file = SafetensorsFile::open(job.head).value();
    weight = stored_head(file, kHeadWeight, {labels, width});
    bias = stored_head(file, kHeadBias, {labels});
  } else {
    Rng rng(job.seed, kHeadStream);
    for (float *p = weight.data_ptr<float>(), *end = p + weight.numel(); p != end; ++p) {
      *p = static_cast<float>(job.settings.head_init_std * rng.normal());
    }
  }
  parameters.add(kHeadWeight, weight, {.decay = true, .head = true});
  parameters.add(kHeadBias, bias, {.decay = false, .head = true});
}

bool reads_unit_vectors(const Job& job) {
  return !job.head.empty() && tailor::reads_unit_vectors(SafetensorsFile::open(job.head).value().metadata());
}

LinearSpec bind_head(const ParameterSet& parameters) {
  LinearSpec head;
  const Parameter& weight = parameters.at(kHeadWeight);
  const Parameter& bias = parameters.at(kHeadBias);
  head.weight = {weight.value, weight.grad};
  head.bias = {bias.value, bias.grad};
  return head;
}

at::Tensor unit_rows(const at::Tensor& x) {
  return x / at::linalg_vector_norm(x, 2, at::IntArrayRef{1}, /*keepdim=*/true).clamp_min(1e-12);
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

void add_predictions(const at::Tensor& logits, std::span<const std::int32_t> labels, Predictions& out) {
  const std::vector<float> p = softmax_rows(logits);
  const auto width = static_cast<std::size_t>(logits.size(1));
  for (std::size_t i = 0; i < labels.size(); ++i) {
    const std::int32_t label = labels[i];
    if (label < 0) continue;
    out.loss_sum -= std::log(std::max(static_cast<double>(p[i * width + static_cast<std::size_t>(label)]), 1e-30));
    out.weight += 1;
  }
  out.probabilities.insert(out.probabilities.end(), p.begin(), p.end());
}

}  // namespace tailor::tune
