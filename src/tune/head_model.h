#pragma once
/// Method "head": the trunk is frozen, so its vectors are computed once and kept ([rows, width] f32); only the linear
/// head is trained on them, for any objective.

#include "tune/head.h"
#include "tune/objective.h"
#include "tune/settings.h"
#include "tune/trainable_model.h"

namespace tailor::tune {

class HeadModel final : public TrainableModel {
 public:
  /// `features` [file rows, width], f32. Borrows the file.
  HeadModel(at::Tensor features, const TokenFile& file, const Job& job, std::string architecture);

  ParameterSet& parameters() override { return parameters_; }
  double weight(RowSpan rows) const override { return static_cast<double>(rows.size()); }
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
  std::string architecture_;
  ParameterSet parameters_;
  LinearSpec head_;
};

}  // namespace tailor::tune
