#pragma once
/// An encoder with a linear head, trained together: scores = W dropout(x) + b, x the pooled vector of a row, or the
/// states of its tokens, brought to length 1 where the job's head is for such (core/head_file.h). Which, and what the
/// scores mean (labels, several labels, a number), is the job's objective.

#include <memory>

#include "tune/encoder.h"
#include "tune/objective.h"
#include "tune/settings.h"
#include "tune/state_store.h"
#include "tune/trainable_model.h"

namespace tailor::tune {

class EncoderClassifier final : public TrainableModel {
 public:
  /// Borrows weights and file. First values of the head: normal(0, head_init_std) from `seed`, bias 0.
  EncoderClassifier(const BaseWeights& weights, const TokenFile& file, const Job& job, EncoderOptions options);

  ParameterSet& parameters() override { return parameters_; }
  double weight(RowSpan rows) const override { return objective_->weight(rows); }
  LossSum forward_backward(RowSpan rows, const StepContext& context) override;
  Predictions predict(RowSpan rows) override;
  void parameters_changed(double decay) override { decay_ = decay; }
  Result<std::vector<std::string>> save(const std::filesystem::path& dir) override;
  nlohmann::ordered_json describe() const override;

 private:
  at::Tensor scores(RowSpan rows, const PackedRows& packed, std::uint64_t seed);
  /// The upper layers on what the frozen ones make of the rows, computed once (state_store.h).
  at::Tensor states(RowSpan rows, const PackedRows& packed, std::uint64_t seed);

  const BaseWeights& weights_;
  const TokenFile& file_;
  const Job job_;
  const std::unique_ptr<const Objective> objective_;
  const bool lora_;
  const at::Device device_;
  const bool unit_vectors_;  // what the head reads is brought to length 1
  ParameterSet parameters_;
  Rng rng_;
  Encoder encoder_;
  LinearSpec head_;
  double decay_ = 1;
  std::int64_t first_trained_ = 0;  // layer
  std::unique_ptr<StateStore> store_;
};

struct ModelInput;

/// What the head reads of all rows of the file, [units, width], by the frozen encoder.
at::Tensor encode_rows(const ModelInput& input, const Objective& objective);

}  // namespace tailor::tune
