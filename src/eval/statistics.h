#pragma once
/// The few distribution functions that the tests and intervals here need. Pure; safe from several threads.

#include <cstdint>
#include <span>

namespace tailor {

/// Quantile of sorted values by linear interpolation between closest ranks (NumPy's default). NaN for no values.
double linear_quantile(std::span<const double> sorted, double q);

/// z with P(N(0,1) <= z) = p, 0 < p < 1. Rational start, then Newton on erfc; good to about 1e-14.
double normal_quantile(double p);

/// P(X <= k) and P(X = k) for X ~ Binomial(n, 1/2).
double binomial_half_cdf(std::int64_t k, std::int64_t n);
double binomial_half_pmf(std::int64_t k, std::int64_t n);

/// P(X > x) for a chi-squared variable with one degree of freedom.
double chi_squared_1_tail(double x);

}  // namespace tailor
