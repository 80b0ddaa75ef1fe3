#include "tune/encoder_classifier.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <fmt/format.h>

#include <algorithm>

#include <nlohmann/json.hpp>

#include "core/bottleneck_file.h"
#include "tune/encoder_passes.h"
#include "tune/export.h"
#include "tune/head.h"
#include "tune/methods.h"
#include "tune/tensor_filters.h"

namespace tailor::tune {

EncoderClassifier::EncoderClassifier(const BaseWeights& weights, const TokenFile& file, const Job& job,
                                     EncoderOptions options)
    : weights_(weights),
      file_(file),
      job_(job),
      objective_(make_objective(job, file)),
      lora_(!options.lora_targets.empty()),
      device_(options.device),
      unit_vectors_(reads_unit_vectors(job)),
      rng_(job.seed, kInitialValuesStream),
      encoder_(weights, file, std::move(options), parameters_, rng_) {
  add_head(parameters_, encoder_.config().width, objective_->outputs(), job);
  parameters_.flatten(device_);
  encoder_.bind(parameters_);
  head_ = bind_head(parameters_);
  first_trained_ = first_trained_layer(parameters_, encoder_.config().layers);
  if (first_trained_ > 0 && job.settings.hidden_dropout == 0 && visits_rows_again(job, file)) {
    constexpr TokenPart kParts[] = {TokenPart::kTrain, TokenPart::kValidation};
    store_ = StateStore::make(job.out, file, kParts, encoder_.config().width);
  }
}

at::Tensor EncoderClassifier::states(RowSpan rows, const PackedRows& packed, std::uint64_t seed) {
  if (store_ == nullptr) return encoder_.forward(packed, seed);
  const std::int64_t width = store_->width();
  at::Tensor lower;
  const auto offset = [&](std::size_t r) { return packed.offsets[r]; };
  if (std::all_of(rows.begin(), rows.end(), [&](std::int64_t row) { return store_->holds(row); })) {
    lower = at::empty({packed.tokens(), width}, at::kFloat);
    for (std::size_t r = 0; r < rows.size(); ++r)
      store_->get(rows[r], 0, offset(r + 1) - offset(r), lower.data_ptr<float>() + offset(r) * width);
    lower = lower.to(device_);
  } else {
    const at::NoGradGuard no_grad;
    lower = encoder_.through(encoder_.embedded(packed, 0), 0, first_trained_, packed, 0);
    const at::Tensor on_cpu = lower.cpu();
    for (std::size_t r = 0; r < rows.size(); ++r) {
      if (!store_->wants(rows[r])) continue;
      store_->put(rows[r], {on_cpu.data_ptr<float>() + offset(r) * width,
                            static_cast<std::size_t>((offset(r + 1) - offset(r)) * width)});
    }
  }
  return encoder_.finished(encoder_.through(lower, first_trained_, encoder_.config().layers, packed, seed));
}

at::Tensor EncoderClassifier::scores(RowSpan rows, const PackedRows& packed, std::uint64_t seed) {
  at::Tensor read = units_of(states(rows, packed, seed), packed, rows, *objective_, job_.settings.pooling);
  if (unit_vectors_) read = unit_rows(read);
  if (seed != 0) read = dropout(read, {Rng::mix(seed), job_.settings.dropout});
  return linear(read, head_, 0);
}

LossSum EncoderClassifier::forward_backward(RowSpan rows, const StepContext& context) {
  const PackedRows packed = encoder_.pack(rows);
  const at::Tensor seen = scores(rows, packed, dropout_seed(context));
  const ClassificationLoss loss = objective_->loss(seen.detach().cpu(), rows, context.denominator);
  LossSum out{.loss_sum = loss.loss_sum,
              .weight = objective_->weight(rows),
              .tokens = packed.tokens(),
              .computed_tokens = packed.tokens(),
              .bad_rows = {}};
  for (const std::size_t r : loss.bad_rows) out.bad_rows.push_back(rows[r]);
  if (out.bad_rows.empty()) seen.backward(loss.d_logits.to(device_));
  return out;
}

Predictions EncoderClassifier::predict(RowSpan rows) {
  const at::NoGradGuard no_grad;
  Predictions out;
  for_passes(file_, rows, [&](std::size_t first, std::size_t count) {
    const RowSpan part = rows.subspan(first, count);
    objective_->answer(scores(part, encoder_.pack(part), 0).cpu(), part, out);
  });
  return out;
}

Result<std::vector<std::string>> EncoderClassifier::save(const std::filesystem::path& dir) {
  std::vector<Encoder::Named> tensors;
  if (!lora_ || job_.export_merged) {
    // Full tuning hands over the whole encoder, since words that no row has have decayed; others what they changed.
    encoder_.visit_merged(weights_, parameters_, decay_, /*changed_only=*/!encoder_.trains_embeddings(),
                          [&](const Encoder::Named& named) { tensors.push_back(named); });
  }
  for (const char* name : {kHeadWeight, kHeadBias}) tensors.push_back({name, parameters_.at(name).value.detach()});
  std::map<std::string, std::string> metadata{{"format", "tailor-weights"}, {"version", "1"}, {"method", job_.method}};
  if (unit_vectors_) metadata[kUnitVectors] = "true";
  std::vector<std::string> files = {"weights.safetensors"};
  TAILOR_CHECK(write_tensors(dir / files[0], tensors, metadata));
  if (job_.export_hugging_face) {
    TAILOR_TRY(const std::vector<std::string> whole, write_hugging_face(dir, weights_, [&](const auto& visit) {
                 encoder_.visit_merged(weights_, parameters_, decay_, /*changed_only=*/false, visit);
               }));
    files.insert(files.end(), whole.begin(), whole.end());
  }
  if (lora_) {
    TAILOR_TRY(const std::vector<std::string> adapter,
               write_peft_adapter(dir, encoder_.adapters(parameters_), job_.settings.lora, weights_));
    files.insert(files.end(), adapter.begin(), adapter.end());
  }
  if (encoder_.has_bottlenecks()) {
    files.emplace_back(kBottleneckFile);
    TAILOR_CHECK(write_tensors(dir / files.back(), encoder_.bottlenecks(parameters_),
                               {{"format", kBottleneckFormat},
                                {"version", "1"},
                                {"place", std::string(encoder_.adapter_place())},
                                {"scale", fmt::format("{}", job_.settings.adapter.scale)}}));
  }
  return files;
}

nlohmann::ordered_json EncoderClassifier::describe() const {
  nlohmann::ordered_json json = encoder_.describe(weights_);
  if (store_ != nullptr) json["frozen_layers_kept"] = first_trained_;
  return json;
}

at::Tensor encode_rows(const ModelInput& input, const Objective& objective) {
  const at::NoGradGuard no_grad;
  ParameterSet none;
  Rng unused(0);
  EncoderOptions options;
  options.device = input.device;
  const TokenFile& file = input.file;
  const Encoder encoder(input.weights, file, options, none, unused);
  std::vector<std::int64_t> rows(file.rows());
  for (std::size_t i = 0; i < rows.size(); ++i) rows[i] = static_cast<std::int64_t>(i);
  const auto tokens = objective.scored_tokens(rows);
  const auto units = static_cast<std::int64_t>(tokens ? tokens->size() : rows.size());
  at::Tensor out =
      at::empty({units, encoder.config().width}, at::TensorOptions().dtype(at::kFloat).device(input.device));
  std::int64_t done = 0;
  for_passes(file, rows, [&](std::size_t first, std::size_t count) {
    const RowSpan part = RowSpan(rows).subspan(first, count);
    const PackedRows packed = encoder.pack(part);
    const at::Tensor read = units_of(encoder.forward(packed, 0), packed, part, objective, input.job.settings.pooling);
    out.narrow(0, done, read.size(0)).copy_(read);
    done += read.size(0);
    if (input.preparing) input.preparing(static_cast<std::int64_t>(first + count));
  });
  return out;
}

}  // namespace tailor::tune
