#pragma once
/// The learning rate of a step: warm-up on a line, then a schedule. Equal to transformers'
/// get_linear_schedule_with_warmup, get_cosine_schedule_with_warmup and get_constant_schedule_with_warmup.

#include <cstdint>

#include "tune/settings.h"

namespace tailor::tune {

class LearningRate {
 public:
  /// `warmup_ratio` of total_steps, rounded up, is warm-up.
  LearningRate(Schedule schedule, std::int64_t total_steps, double warmup_ratio);
  /// Factor in [0, 1] on the peak rate at step 0, 1, ….
  double factor(std::int64_t step) const;

 private:
  Schedule schedule_;
  std::int64_t total_, warmup_;
};

}  // namespace tailor::tune
