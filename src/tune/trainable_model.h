#pragma once
/// What the trainer knows of a model: parameters, loss with gradients, predictions, and how to save itself. The trainer
/// deals in row numbers of the job's token file (core/token_file.h); the model holds that file and packs the rows
/// itself.

#include <cstdint>
#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/result.h"
#include "tune/parameters.h"

namespace tailor::tune {

using RowSpan = std::span<const std::int64_t>;  // row numbers of the token file; borrowed for the call

/// What one forward and backward pass needs besides the rows.
struct StepContext {
  double denominator = 1;  // the gradient is that of (sum of weighted losses) / denominator; the sum of weight() over
                           // all micro-batches of the step, so that accumulation equals one large batch
  std::uint64_t seed = 0;  // of the run
  std::int64_t step = 0;   // counts from 0; dropout masks are a function of (seed, step, micro_batch) and nothing else
  std::int64_t micro_batch = 0;
};

struct LossSum {
  double loss_sum = 0;                 // not divided by anything
  double weight = 0;                   // rows, or label tokens (causal, token-classification), that carried loss
  std::int64_t tokens = 0;             // real tokens of the rows, before any saving
  std::int64_t computed_tokens = 0;    // tokens that passed the layers (less where a prefix is shared)
  std::vector<std::int64_t> bad_rows;  // rows whose own loss was not finite; the trainer names them
  std::optional<double> likeliest;     // causal-lm: of `weight`, tokens than which the model held no other likelier
};

struct Predictions {
  double loss_sum = 0;  // without label smoothing
  double weight = 0;
  std::int64_t labels = 0;           // columns; 0 where the task has no fixed labels
  std::vector<float> probabilities;  // [rows, labels] (token-classification: [answered tokens, labels]); multi-label:
                                     // of each label by itself, else rows sum to 1
  std::vector<float> values;         // regression: [rows]; span-extraction: [tokens, 2]
  std::vector<double> row_losses, row_weights;  // where labels is 0: of each row
  std::optional<double> likeliest;              // as in LossSum
};

/// Adds to, and never clears, the gradients of parameters(). Errors of use throw tailor::Exception; out of memory is
/// c10::OutOfMemoryError or std::bad_alloc and leaves parameters as they were. Threads: one caller at a time,
/// at::parallel_for inside.
class TrainableModel {
 public:
  virtual ~TrainableModel() = default;
  virtual ParameterSet& parameters() = 0;

  /// Sum of the loss weights of these rows; what StepContext::denominator is made of.
  virtual double weight(RowSpan rows) const = 0;
  virtual LossSum forward_backward(RowSpan rows, const StepContext& context) = 0;

  /// Dropout off, no gradients. Rows come back in the order given; the model may pack them as it likes.
  virtual Predictions predict(RowSpan rows) = 0;

  /// Called after the optimiser changed the parameters (also after a checkpoint or the best values were read back), for
  /// models that keep something derived from them. `decay` is the product of (1 - rate * weight_decay) over the steps
  /// so far, which weights kept out of the flat buffer because no row uses them (unused words) take at export.
  virtual void parameters_changed(double decay) { (void)decay; }

  /// Writes what was trained into `dir` (which exists), each file atomically; returns the file names relative to `dir`.
  virtual Result<std::vector<std::string>> save(const std::filesystem::path& dir) = 0;

  /// For result.json: {"architecture": …, "layers": …, "adapter": {…}, …}.
  virtual nlohmann::ordered_json describe() const = 0;
};

}  // namespace tailor::tune
