#pragma once
/// A moving average of the values that are trained, equal to torch.optim.swa_utils.AveragedModel with
/// get_ema_multi_avg_fn(decay): after the first step the average is the values, after each one more
///   average = decay * average + (1 - decay) * values.
/// Training goes on with the values themselves; what is evaluated, kept and saved is the average.

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "tune/parameters.h"

namespace tailor::tune {

/// Threads: one at a time.
class WeightAverage {
 public:
  /// Borrows the parameters; keeps one more float for each of them. `decay` 0: there is no average, and every call but
  /// on() does nothing.
  WeightAverage(ParameterSet& parameters, double decay);

  bool on() const { return decay_ > 0; }
  void touch();  // makes the values resident, as AdamW::touch()
  /// After a step of the optimiser; `untrained` is what became of weights without a gradient (AdamW::decay()).
  void update(double untrained);
  /// The parameters get the average and the average the parameters; before the first update nothing happens. Twice:
  /// all is as before.
  void swap();

  std::int64_t updates() const { return updates_; }
  double untrained() const { return untrained_; }  // the average of what update() was told
  at::Tensor values() const { return values_; }    // [element_count]; for checkpoints
  void restore(std::int64_t updates, double untrained);

 private:
  ParameterSet& parameters_;
  double decay_;
  at::Tensor values_;
  std::int64_t updates_ = 0;
  double untrained_ = 1;
};

}  // namespace tailor::tune
