#include "tune/weight_average.h"

#include <ATen/ops/empty_like.h>

#include "tune/flat_update.h"

namespace tailor::tune {

WeightAverage::WeightAverage(ParameterSet& parameters, double decay) : parameters_(parameters), decay_(decay) {
  if (on()) values_ = at::empty_like(parameters.flat_values());
}

void WeightAverage::update(double untrained) {
  if (!on()) return;
  untrained_ = updates_ == 0 ? untrained : decay_ * untrained_ + (1 - decay_) * untrained;
  const bool first = updates_++ == 0;
  flat_update(values_).average(values_, parameters_.flat_values(), static_cast<float>(decay_), first);
}

void WeightAverage::touch() {
  if (on() && updates_ == 0) values_.zero_();
}

void WeightAverage::swap() {
  if (!on() || updates_ == 0) return;
  flat_update(values_).swap(values_, parameters_.flat_values());
}

void WeightAverage::restore(std::int64_t updates, double untrained) {
  updates_ = updates;
  untrained_ = untrained;
}

}  // namespace tailor::tune
