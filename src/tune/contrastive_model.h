#pragma once
/// An encoder tuned so that texts of one label lie together and those of others apart, as SetFit does (Tunstall et al.,
/// arXiv:2209.11055), with the supervised contrastive loss (Khosla et al., arXiv:2004.11362) in the place of the
/// regression on pairs: every text of a pass is compared with every other one.
///
///   L_i = - mean over p in P(i) of log( exp(z_i z_p / t) / sum over a != i of exp(z_i z_a / t) )
///
/// z: pooled vectors of length 1; P(i): the other texts with i's label; t: the temperature. Where the job gives a head
/// (for vectors of length 1), it learns beside the encoder, from all texts of the pass (Gunel et al.,
/// arXiv:2011.01403):
///
///   loss = 0.5 * mean of L_i + mean of -log softmax(W z_i + b)[label of i]
///
/// and answers; without one the nearest mean vector does, and L_i is all. To each row of the batch
/// come another row of its label, the label's name where the file has one as a text (a row whose id is below 0:
/// docs/TUNE_JOB.md), and settings.hard_negatives of the rows of other labels that lie nearest to it
/// (tune/hard_negatives.h), so that every pass has something to pull together and something hard to tell apart.

#include <vector>

#include "tune/encoder.h"
#include "tune/hard_negatives.h"
#include "tune/settings.h"
#include "tune/trainable_model.h"

namespace tailor::tune {

class ContrastiveModel final : public TrainableModel {
 public:
  /// Borrows weights and file. Throws where the job's head is not for vectors of length 1.
  ContrastiveModel(const BaseWeights& weights, const TokenFile& file, const Job& job, EncoderOptions options);

  ParameterSet& parameters() override { return parameters_; }
  double weight(RowSpan rows) const override { return static_cast<double>(rows.size()); }
  LossSum forward_backward(RowSpan rows, const StepContext& context) override;
  /// By the head; without one by the nearest prototype (mean vector of a label's training rows): softmax over cosines /
  /// temperature.
  Predictions predict(RowSpan rows) override;
  void parameters_changed(double decay) override;
  Result<std::vector<std::string>> save(const std::filesystem::path& dir) override;
  nlohmann::ordered_json describe() const override;

 private:
  at::Tensor vectors(const PackedRows& packed, std::uint64_t seed) const;  // [rows, width], length 1, with gradients
  at::Tensor vectors_of_all(RowSpan rows) const;                           // the same in passes, without
  const at::Tensor& prototypes();                                          // [labels, width], length 1
  void mine_or_read(const StepContext& context);                           // the hard negatives of the step's epoch
  std::vector<std::int64_t> companions(RowSpan rows, const StepContext& context) const;
  bool has_head() const { return !job_.head.empty(); }
  /// Mean of L_i over the vectors that have a positive.
  at::Tensor contrast(const at::Tensor& z, const std::vector<std::int32_t>& labels) const;

  const BaseWeights& weights_;
  const TokenFile& file_;
  const Job job_;
  ParameterSet parameters_;
  Rng rng_;
  const at::Device device_;
  Encoder encoder_;
  LinearSpec head_;
  std::vector<std::vector<std::int64_t>> rows_of_label_;  // training rows
  std::vector<std::int64_t> name_of_label_;               // the row that is a label's name; -1: none
  HardNegatives hard_negatives_;
  std::int64_t steps_per_epoch_;
  at::Tensor prototypes_;  // undefined: the parameters have changed since
  double decay_ = 1;
};

}  // namespace tailor::tune
