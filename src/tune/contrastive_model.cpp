#include "tune/contrastive_model.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "tune/data_order.h"
#include "tune/encoder_passes.h"
#include "tune/export.h"
#include "tune/head.h"

namespace tailor::tune {
namespace {

constexpr double kContrastWeight = 0.5;  // beside the head's cross-entropy

}  // namespace

ContrastiveModel::ContrastiveModel(const BaseWeights& weights, const TokenFile& file, const Job& job,
                                   EncoderOptions options)
    : weights_(weights),
      file_(file),
      job_(job),
      rng_(job.seed, kInitialValuesStream),
      device_(options.device),
      encoder_(weights, file, std::move(options), parameters_, rng_),
      rows_of_label_(static_cast<std::size_t>(file.n_labels)),
      name_of_label_(static_cast<std::size_t>(file.n_labels), -1),
      hard_negatives_(file, job.out / "checkpoint"),
      steps_per_epoch_(DataOrder(rows_of(file, TokenPart::kTrain), job.settings.batch_size, 0).steps_per_epoch()) {
  if (has_head()) {
    if (!reads_unit_vectors(job)) {
      throw Exception(
          {ErrorCode::kInvalidArgument,
           fmt::format("{} is no head for vectors of length 1, which method contrastive makes", job.head.string()),
           "its metadata would say unit_vectors (docs/TUNE_JOB.md)"});
    }
    add_head(parameters_, encoder_.config().width, file.n_labels, job);
  }
  parameters_.flatten(device_);
  encoder_.bind(parameters_);
  if (has_head()) head_ = bind_head(parameters_);
  for (std::size_t r = 0; r < file.rows(); ++r) {
    if (file.parts[r] != TokenPart::kTrain) continue;
    const auto label = static_cast<std::size_t>(file.labels[r]);
    rows_of_label_[label].push_back(static_cast<std::int64_t>(r));
    if (file.row_ids[r] < 0) name_of_label_[label] = static_cast<std::int64_t>(r);
  }
}

at::Tensor ContrastiveModel::vectors(const PackedRows& packed, std::uint64_t seed) const {
  return unit_rows(pool(encoder_.forward(packed, seed), packed, job_.settings.pooling));
}

at::Tensor ContrastiveModel::vectors_of_all(RowSpan rows) const {
  const c10::NoGradGuard no_grad;
  at::Tensor out = at::empty({static_cast<std::int64_t>(rows.size()), encoder_.config().width},
                             at::TensorOptions().dtype(at::kFloat).device(device_));
  for_passes(file_, rows, [&](std::size_t first, std::size_t count) {
    out.narrow(0, static_cast<std::int64_t>(first), static_cast<std::int64_t>(count))
        .copy_(vectors(encoder_.pack(rows.subspan(first, count)), 0));
  });
  return out;
}

const at::Tensor& ContrastiveModel::prototypes() {
  if (prototypes_.defined()) return prototypes_;
  const c10::NoGradGuard no_grad;
  prototypes_ = at::zeros({file_.n_labels, encoder_.config().width}, at::kFloat).to(device_);
  for (std::int32_t l = 0; l < file_.n_labels; ++l) {
    const auto& rows = rows_of_label_[static_cast<std::size_t>(l)];
    if (!rows.empty()) prototypes_.select(0, l).copy_(at::mean(vectors_of_all(rows), 0));
  }
  prototypes_ = unit_rows(prototypes_);
  return prototypes_;
}

void ContrastiveModel::parameters_changed(double decay) {
  decay_ = decay;
  prototypes_ = at::Tensor();
}

void ContrastiveModel::mine_or_read(const StepContext& context) {
  if (job_.settings.hard_negatives == 0) return;
  const std::int64_t epoch = context.step / steps_per_epoch_;
  const bool begins = context.step % steps_per_epoch_ == 0 && context.micro_batch == 0;
  if (begins && hard_negatives_.epoch() != epoch)
    hard_negatives_.mine(vectors_of_all(hard_negatives_.training_rows()).cpu(), epoch);
  else if (hard_negatives_.epoch() != epoch)
    hard_negatives_.read(epoch);
}

std::vector<std::int64_t> ContrastiveModel::companions(RowSpan rows, const StepContext& context) const {
  std::vector<std::int64_t> all(rows.begin(), rows.end());
  Rng rng(Rng::mix(dropout_seed(context)), kPairsStream);
  const auto draw = [&](const std::vector<std::int64_t>& from) {
    return from[static_cast<std::size_t>(rng.below(from.size()))];
  };
  for (const std::int64_t row : rows) {
    const auto label = static_cast<std::size_t>(file_.labels[static_cast<std::size_t>(row)]);
    all.push_back(draw(rows_of_label_[label]));
    if (name_of_label_[label] >= 0) all.push_back(name_of_label_[label]);
    if (job_.settings.hard_negatives == 0) continue;
    const RowSpan near = hard_negatives_.of(row);
    for (int k = 0; k < job_.settings.hard_negatives && !near.empty(); ++k)
      all.push_back(near[static_cast<std::size_t>(rng.below(near.size()))]);
  }
  // A row that came twice would be its own positive.
  std::sort(all.begin(), all.end());
  all.erase(std::unique(all.begin(), all.end()), all.end());
  return all;
}

at::Tensor ContrastiveModel::contrast(const at::Tensor& z, const std::vector<std::int32_t>& labels) const {
  const std::int64_t n = z.size(0);
  at::Tensor same = at::zeros({n, n}, at::kFloat);
  for (std::int64_t i = 0; i < n; ++i) {
    for (std::int64_t j = 0; j < n; ++j) {
      if (i != j && labels[static_cast<std::size_t>(i)] == labels[static_cast<std::size_t>(j)])
        same.data_ptr<float>()[i * n + j] = 1;
    }
  }
  same = same.to(device_);
  const at::Tensor self = at::eye(n, at::kBool).to(device_);
  const at::Tensor scores =
      (at::mm(z, z.t()) / job_.settings.temperature).masked_fill(self, -std::numeric_limits<float>::infinity());
  const at::Tensor log_p = at::log_softmax(scores, 1).masked_fill(self, 0);
  const at::Tensor positives = same.sum(1);
  const at::Tensor losses = -(log_p * same).sum(1) / positives.clamp_min(1);
  return losses.sum() / std::max(1.0, (positives > 0).sum().item<double>());
}

LossSum ContrastiveModel::forward_backward(RowSpan rows, const StepContext& context) {
  mine_or_read(context);
  const std::vector<std::int64_t> all = companions(rows, context);
  const PackedRows packed = encoder_.pack(all);
  LossSum out{.loss_sum = 0,
              .weight = static_cast<double>(rows.size()),
              .tokens = packed.tokens(),
              .computed_tokens = packed.tokens(),
              .bad_rows = {}};
  const at::Tensor z = vectors(packed, dropout_seed(context));
  const auto labels = labels_of(file_, all);
  // Means over the texts of the pass, times the rows of the batch: other losses count rows too.
  at::Tensor loss = contrast(z, labels);
  if (has_head()) {
    const at::Tensor truth = at::empty({static_cast<std::int64_t>(labels.size())}, at::kLong);
    std::copy(labels.begin(), labels.end(), truth.data_ptr<std::int64_t>());
    loss = kContrastWeight * loss + at::cross_entropy_loss(linear(z, head_, 0), truth.to(device_), {},
                                                           at::Reduction::Mean, -100, job_.settings.label_smoothing);
  }
  loss = loss * static_cast<double>(rows.size());
  out.loss_sum = loss.item<double>();
  if (!std::isfinite(out.loss_sum)) {
    out.bad_rows.assign(rows.begin(), rows.end());
    return out;
  }
  (loss / context.denominator).backward();
  return out;
}

Predictions ContrastiveModel::predict(RowSpan rows) {
  const c10::NoGradGuard no_grad;
  Predictions out;
  out.labels = file_.n_labels;
  if (rows.empty()) return out;
  const at::Tensor z = vectors_of_all(rows);
  const at::Tensor scores = has_head() ? linear(z, head_, 0) : at::mm(z, prototypes().t()) / job_.settings.temperature;
  add_predictions(scores.cpu(), labels_of(file_, rows), out);
  return out;
}

Result<std::vector<std::string>> ContrastiveModel::save(const std::filesystem::path& dir) {
  std::vector<Encoder::Named> tensors;
  encoder_.visit_merged(weights_, parameters_, decay_, /*changed_only=*/!encoder_.trains_embeddings(),
                        [&](const Encoder::Named& named) { tensors.push_back(named); });
  std::map<std::string, std::string> metadata{{"format", "tailor-weights"}, {"version", "1"}, {"method", job_.method}};
  if (has_head()) {
    for (const char* name : {kHeadWeight, kHeadBias}) tensors.push_back({name, parameters_.at(name).value.detach()});
    metadata[kUnitVectors] = "true";
  }
  std::vector<std::string> files = {"weights.safetensors"};
  TAILOR_CHECK(write_tensors(dir / files[0], tensors, metadata));
  return files;
}

nlohmann::ordered_json ContrastiveModel::describe() const {
  return encoder_.describe(weights_);
}

}  // namespace tailor::tune
