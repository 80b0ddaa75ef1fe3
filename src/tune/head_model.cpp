#include "tune/head_model.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/index_select.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/rng.h"
#include "tune/export.h"

namespace tailor::tune {

HeadModel::HeadModel(at::Tensor features, const TokenFile& file, const Job& job, std::string architecture)
    : features_(std::move(features)),
      file_(file),
      job_(job),
      objective_(make_objective(job, file)),
      architecture_(std::move(architecture)) {
  add_head(parameters_, features_.size(1), objective_->outputs(), job);
  parameters_.flatten();
  head_ = bind_head(parameters_);
}

at::Tensor HeadModel::gather(RowSpan rows) const {
  at::Tensor index = at::empty({static_cast<std::int64_t>(rows.size())}, at::kLong);
  std::copy(rows.begin(), rows.end(), index.data_ptr<std::int64_t>());
  return at::index_select(features_, 0, index);
}

LossSum HeadModel::forward_backward(RowSpan rows, const StepContext& context) {
  const at::Tensor x = dropout(gather(rows), {dropout_seed(context), job_.settings.dropout});
  const at::Tensor scores = linear(x, head_, 0);
  const ClassificationLoss loss = objective_->loss(scores.detach(), rows, context.denominator);
  LossSum out;
  out.loss_sum = loss.loss_sum;
  out.weight = static_cast<double>(rows.size() - loss.bad_rows.size());
  for (const std::int64_t r : rows)
    out.tokens += static_cast<std::int64_t>(file_.row(static_cast<std::size_t>(r)).size());
  for (const std::size_t r : loss.bad_rows) out.bad_rows.push_back(rows[r]);
  if (out.bad_rows.empty()) scores.backward(loss.d_logits);
  return out;
}

Predictions HeadModel::predict(RowSpan rows) {
  const at::NoGradGuard no_grad;
  Predictions out;
  objective_->answer(linear(gather(rows), head_, 0), rows, out);
  return out;
}

Result<std::vector<std::string>> HeadModel::save(const std::filesystem::path& dir) {
  const std::vector<Encoder::Named> tensors = {{kHeadWeight, parameters_.at(kHeadWeight).value.detach()},
                                               {kHeadBias, parameters_.at(kHeadBias).value.detach()}};
  TAILOR_CHECK(write_tensors(dir / "weights.safetensors", tensors,
                             {{"format", "tailor-weights"}, {"version", "1"}, {"method", job_.method}}));
  return std::vector<std::string>{"weights.safetensors"};
}

nlohmann::ordered_json HeadModel::describe() const {
  return {{"architecture", architecture_}, {"width", features_.size(1)}, {"labels", file_.n_labels}};
}

}  // namespace tailor::tune
