#include "tune/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace tailor::tune {

LearningRate::LearningRate(Schedule schedule, std::int64_t total_steps, double warmup_ratio)
    : schedule_(schedule),
      total_(total_steps),
      warmup_(static_cast<std::int64_t>(std::ceil(warmup_ratio * static_cast<double>(total_steps)))) {}

double LearningRate::factor(std::int64_t step) const {
  if (step < warmup_) return static_cast<double>(step) / static_cast<double>(std::max<std::int64_t>(1, warmup_));
  if (schedule_ == Schedule::kConstant) return 1;
  const double rest = static_cast<double>(std::max<std::int64_t>(1, total_ - warmup_));
  if (schedule_ == Schedule::kLinear) return std::max(0.0, static_cast<double>(total_ - step) / rest);
  const double progress = static_cast<double>(step - warmup_) / rest;
  return std::max(0.0, 0.5 * (1 + std::cos(std::numbers::pi * progress)));
}

}  // namespace tailor::tune
