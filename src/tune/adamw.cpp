#include "tune/adamw.h"

#include <ATen/ops/zeros_like.h>

#include <cmath>

#include "tune/flat_update.h"
#include "tune/profile.h"

namespace tailor::tune {

AdamW::AdamW(ParameterSet& parameters, const Settings& settings)
    : parameters_(parameters),
      settings_(settings),
      m_(at::zeros_like(parameters.flat_values())),
      v_(at::zeros_like(parameters.flat_values())) {
  for (const Parameter& p : parameters) {
    const bool head = p.options.head && settings.head_learning_rate > 0;
    Segment segment{p.offset, p.offset + p.value.numel(),
                    (head ? settings.head_learning_rate : settings.learning_rate) * p.options.rate_scale,
                    p.options.decay ? settings.weight_decay : 0};
    if (!segments_.empty() && segments_.back().rate == segment.rate && segments_.back().decay == segment.decay) {
      segments_.back().end = segment.end;
    } else {
      segments_.push_back(segment);
    }
  }
}

double AdamW::gradient_norm() const {
  const auto n = static_cast<double>(parameters_.element_count());
  const ProfileScope scope(Kernel::kOptimiser, 2 * n, n);
  return flat_update(parameters_.flat_grad()).norm(parameters_.flat_grad());
}

void AdamW::step(double rate_factor, double gradient_scale) {
  const auto n = static_cast<double>(parameters_.element_count());
  const ProfileScope scope(Kernel::kOptimiser, 14 * n, 8 * n);
  ++steps_;
  const double t = static_cast<double>(steps_);
  AdamStep step;
  step.b1 = static_cast<float>(settings_.beta1);
  step.b2 = static_cast<float>(settings_.beta2);
  step.eps = static_cast<float>(settings_.epsilon);
  step.correction = static_cast<float>(1 / std::sqrt(1 - std::pow(settings_.beta2, t)));
  step.scale = static_cast<float>(gradient_scale);
  for (const Segment& segment : segments_) {
    const double rate = segment.rate * rate_factor;
    step.begin = segment.begin;
    step.end = segment.end;
    step.keep = static_cast<float>(1 - rate * segment.decay);
    step.size = static_cast<float>(rate / (1 - std::pow(settings_.beta1, t)));
    flat_update(m_).adam(parameters_.flat_values(), parameters_.flat_grad(), m_, v_, step);
  }
  decay_ *= 1 - settings_.learning_rate * rate_factor * settings_.weight_decay;
}

void AdamW::touch() {
  for (const at::Tensor& moment : {m_, v_}) flat_update(moment).touch(moment);
}

}  // namespace tailor::tune
