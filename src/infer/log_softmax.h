#pragma once
/// log sum exp over a vocabulary, written so that the compiler vectorises it.

#include <span>

namespace tailor {

/// log(sum_i exp(x_i)), subtracting the maximum first. Relative error of each term below 2e-7, so the result is good to
/// about 1e-6; f64 sums over blocks. Empty: -infinity.
double log_sum_exp(std::span<const float> x);

}  // namespace tailor
