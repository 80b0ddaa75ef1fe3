#include "tune/head_model.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/index_select.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/rng.h"
#include "tune/export.h"
#include "tune/portable.h"

namespace tailor::tune {

HeadModel::HeadModel(at::Tensor features, const TokenFile& file, const Job& job, std::string architecture)
    : features_(std::move(features)),
      file_(file),
      job_(job),
      objective_(make_objective(job, file)),
      unit_vectors_(reads_unit_vectors(job)),
      architecture_(std::move(architecture)) {
  if (unit_vectors_) features_ = unit_rows(features_);
  first_.push_back(0);
  for (std::int64_t r = 0; r < static_cast<std::int64_t>(file.rows()); ++r) {
    const auto tokens = objective_->scored_tokens(RowSpan(&r, 1));
    first_.push_back(first_.back() + (tokens ? static_cast<std::int64_t>(tokens->size()) : 1));
  }
  add_head(parameters_, features_.size(1), objective_->outputs(), job);
  parameters_.flatten(features_.device());
  head_ = bind_head(parameters_);
}

at::Tensor HeadModel::gather(RowSpan rows) const {
  std::vector<std::int64_t> units;
  for (const std::int64_t r : rows) {
    for (std::int64_t u = first_[static_cast<std::size_t>(r)]; u < first_[static_cast<std::size_t>(r) + 1]; ++u)
      units.push_back(u);
  }
  return at::index_select(features_, 0, portable::index_of(std::span<const std::int64_t>(units), features_.device()));
}

LossSum HeadModel::forward_backward(RowSpan rows, const StepContext& context) {
  const at::Tensor x = dropout(gather(rows), {dropout_seed(context), job_.settings.dropout});
  const at::Tensor scores = linear(x, head_, 0);
  const ClassificationLoss loss = objective_->loss(scores.detach().cpu(), rows, context.denominator);
  LossSum out;
  out.loss_sum = loss.loss_sum;
  out.weight = objective_->weight(rows);
  for (const std::int64_t r : rows)
    out.tokens += static_cast<std::int64_t>(file_.row(static_cast<std::size_t>(r)).size());
  for (const std::size_t r : loss.bad_rows) out.bad_rows.push_back(rows[r]);
  if (out.bad_rows.empty()) scores.backward(loss.d_logits.to(scores.device()));
  return out;
}

Predictions HeadModel::predict(RowSpan rows) {
  const at::NoGradGuard no_grad;
  Predictions out;
  objective_->answer(linear(gather(rows), head_, 0).cpu(), rows, out);
  return out;
}

Result<std::vector<std::string>> HeadModel::save(const std::filesystem::path& dir) {
  const std::vector<Encoder::Named> tensors = {{kHeadWeight, parameters_.at(kHeadWeight).value.detach()},
                                               {kHeadBias, parameters_.at(kHeadBias).value.detach()}};
  std::map<std::string, std::string> metadata{{"format", "tailor-weights"}, {"version", "1"}, {"method", job_.method}};
  if (unit_vectors_) metadata[kUnitVectors] = "true";
  TAILOR_CHECK(write_tensors(dir / "weights.safetensors", tensors, metadata));
  return std::vector<std::string>{"weights.safetensors"};
}

nlohmann::ordered_json HeadModel::describe() const {
  return {{"architecture", architecture_}, {"width", features_.size(1)}, {"labels", file_.n_labels}};
}

}  // namespace tailor::tune
