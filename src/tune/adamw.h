#pragma once
/// AdamW (Loshchilov and Hutter, arXiv:1711.05101) over the flat buffers in one pass, equal to torch.optim.AdamW:
///   p -= rate * decay * p;  m = b1 m + (1 - b1) g;  v = b2 v + (1 - b2) g^2
///   p -= rate * (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps)

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "tune/parameters.h"
#include "tune/settings.h"

namespace tailor::tune {

class AdamW {
 public:
  /// Borrows the parameters; keeps two more floats for each of them.
  AdamW(ParameterSet& parameters, const Settings& settings);

  /// sqrt of the sum of squares of the whole gradient; the same for any number of threads.
  double gradient_norm() const;
  /// One update with the gradient times `gradient_scale`; leaves the gradient at zero. `rate_factor` is the schedule's.
  void step(double rate_factor, double gradient_scale);

  std::int64_t steps() const { return steps_; }
  void set_steps(std::int64_t steps) { steps_ = steps; }
  /// Makes the moments resident: their pages count in the process's memory from here on. Values stay.
  void touch();
  at::Tensor first_moment() const { return m_; }   // [element_count]; for checkpoints
  at::Tensor second_moment() const { return v_; }  // [element_count]
  /// Product of (1 - rate * weight_decay) over the steps: what happened to weights that never had a gradient.
  double decay() const { return decay_; }
  void set_decay(double decay) { decay_ = decay; }

 private:
  /// Neighbours in the flat buffer that are updated alike.
  struct Segment {
    std::int64_t begin = 0, end = 0;
    double rate = 0, decay = 0;
    bool operator==(const Segment&) const = default;
  };
  ParameterSet& parameters_;
  const Settings settings_;
  std::vector<Segment> segments_;
  at::Tensor m_, v_;
  std::int64_t steps_ = 0;
  double decay_ = 1;
};

}  // namespace tailor::tune
