#include "tune/weight_average.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>

#include <utility>

namespace tailor::tune {
namespace {

constexpr std::int64_t kBlock = 16384;

}  // namespace

WeightAverage::WeightAverage(ParameterSet& parameters, double decay) : parameters_(parameters), decay_(decay) {
  if (on()) values_ = at::empty({parameters.element_count()}, at::kFloat);
}

void WeightAverage::update(double untrained) {
  if (!on()) return;
  const auto keep = static_cast<float>(updates_ == 0 ? 0 : decay_);
  untrained_ = updates_ == 0 ? untrained : decay_ * untrained_ + (1 - decay_) * untrained;
  const bool first = updates_++ == 0;
  float* average = values_.data_ptr<float>();
  const float* p = parameters_.flat_values().data_ptr<float>();
  at::parallel_for(0, parameters_.element_count(), kBlock, [=](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) average[i] = first ? p[i] : keep * average[i] + (1 - keep) * p[i];
  });
}

void WeightAverage::touch() {
  if (on() && updates_ == 0) values_.zero_();
}

void WeightAverage::swap() {
  if (!on() || updates_ == 0) return;
  float* average = values_.data_ptr<float>();
  float* p = parameters_.flat_values().data_ptr<float>();
  at::parallel_for(0, parameters_.element_count(), kBlock, [=](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) std::swap(average[i], p[i]);
  });
}

void WeightAverage::restore(std::int64_t updates, double untrained) {
  updates_ = updates;
  untrained_ = untrained;
}

}  // namespace tailor::tune
