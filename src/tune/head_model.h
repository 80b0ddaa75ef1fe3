#pragma once
/// Method "head": the trunk is frozen, so its vectors are computed once and kept ([units, width] f32: one a row, or one
/// a token that is answered); only the linear head is trained on them, for any objective.

#include "tune/head.h"
#include "tune/objective.h"
#include "tune/settings.h"
#include "tune/trainable_model.h"

namespace tailor::tune {

class HeadModel final : public TrainableModel {
 public:
  /// `features` [units of all file rows, width], f32. Borrows the file.
  HeadModel(at::Tensor features, const TokenFile& file, const Job& job, std::string architecture);

  ParameterSet& parameters() override { return parameters_; }
  double weight(RowSpan rows) const override { return objective_->weight(rows); }
  LossSum forward_backward(RowSpan rows, const StepContext& context) override;
  Predictions predict(RowSpan rows) override;
  Result<std::vector<std::string>> save(const std::filesystem::path& dir) override;
  nlohmann::ordered_json describe() const override;

 private:
  at::Tensor gather(RowSpan rows) const;

  at::Tensor features_;
  const TokenFile& file_;
  const Job job_;
  std::unique_ptr<const Objective> objective_;
  bool unit_vectors_;  // features_ are such, for a head that reads them
  std::string architecture_;
  std::vector<std::int64_t> first_;  // unit of each row, and the end
  ParameterSet parameters_;
  LinearSpec head_;
};

}  // namespace tailor::tune
