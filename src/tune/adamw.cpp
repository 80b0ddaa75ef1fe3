#include "tune/adamw.h"

#include <ATen/Parallel.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>

#include "tune/profile.h"
#include "tune/vector_math.h"

namespace tailor::tune {
namespace {

constexpr std::int64_t kPageFloats = 1024;  // of 4,096 bytes
constexpr std::int64_t kBlock = 16384;  // floats summed on their own, so that the norm does not depend on the threads

}  // namespace

AdamW::AdamW(ParameterSet& parameters, const Settings& settings)
    : parameters_(parameters),
      settings_(settings),
      m_(at::zeros({parameters.element_count()}, at::kFloat)),
      v_(at::zeros({parameters.element_count()}, at::kFloat)) {
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
  const std::int64_t n = parameters_.element_count();
  const ProfileScope scope(Kernel::kOptimiser, 2 * static_cast<double>(n), static_cast<double>(n));
  const float* g = parameters_.flat_grad().data_ptr<float>();
  std::vector<double> sums(static_cast<std::size_t>((n + kBlock - 1) / kBlock), 0);
  at::parallel_for(0, static_cast<std::int64_t>(sums.size()), 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t b = begin; b < end; ++b) {
      const std::int64_t last = std::min(n, (b + 1) * kBlock);
      simd::F8 total = {};
      for (std::int64_t i = b * kBlock; i < last; i += 8) {
        const simd::F8 x = simd::load_part(g + i, last - i);
        total += x * x;
      }
      sums[static_cast<std::size_t>(b)] = simd::sum(total);
    }
  });
  double total = 0;
  for (const double s : sums) total += s;
  return std::sqrt(total);
}

void AdamW::step(double rate_factor, double gradient_scale) {
  const auto n = static_cast<double>(parameters_.element_count());
  const ProfileScope scope(Kernel::kOptimiser, 14 * n, 8 * n);
  ++steps_;
  const double t = static_cast<double>(steps_);
  const auto b1 = static_cast<float>(settings_.beta1);
  const auto b2 = static_cast<float>(settings_.beta2);
  const auto correction = static_cast<float>(1 / std::sqrt(1 - std::pow(settings_.beta2, t)));
  const auto eps = static_cast<float>(settings_.epsilon);
  const auto scale = static_cast<float>(gradient_scale);
  float* p = parameters_.flat_values().data_ptr<float>();
  float* g = parameters_.flat_grad().data_ptr<float>();
  float* m = m_.data_ptr<float>();
  float* v = v_.data_ptr<float>();
  for (const Segment& segment : segments_) {
    const double rate = segment.rate * rate_factor;
    const auto keep = static_cast<float>(1 - rate * segment.decay);
    const auto step_size = static_cast<float>(rate / (1 - std::pow(settings_.beta1, t)));
    at::parallel_for(segment.begin, segment.end, kBlock, [=](std::int64_t begin, std::int64_t end) {
#pragma omp simd
      for (std::int64_t i = begin; i < end; ++i) {
        const float gi = g[i] * scale;
        const float mi = b1 * m[i] + (1 - b1) * gi;
        const float vi = b2 * v[i] + (1 - b2) * gi * gi;
        m[i] = mi;
        v[i] = vi;
        p[i] = keep * p[i] - step_size * mi / (std::sqrt(vi) * correction + eps);
        g[i] = 0;
      }
    });
  }
  decay_ *= 1 - settings_.learning_rate * rate_factor * settings_.weight_decay;
}

void AdamW::touch() {
  // Zeros that were never written share one page.
  for (const at::Tensor& moment : {m_, v_}) {
    auto* values = moment.data_ptr<float>();
    for (std::int64_t i = 0; i < moment.numel(); i += kPageFloats) *const_cast<volatile float*>(values + i) = values[i];
  }
}

}  // namespace tailor::tune
