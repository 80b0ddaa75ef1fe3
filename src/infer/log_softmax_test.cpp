#include "infer/log_softmax.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "core/rng.h"

namespace tailor {
namespace {

double reference(const std::vector<float>& x) {
  long double maximum = -INFINITY, sum = 0;
  for (const float v : x) maximum = std::max<long double>(maximum, v);
  for (const float v : x) sum += std::exp(static_cast<long double>(v) - maximum);
  return static_cast<double>(maximum + std::log(sum));
}

TEST(LogSumExp, EqualsLongDoubleSum) {
  Rng rng(3);
  for (const std::size_t n : {1u, 7u, 16u, 1000u, 49152u}) {
    for (const double scale : {0.1, 3.0, 40.0}) {
      std::vector<float> x(n);
      for (float& v : x) v = static_cast<float>(scale * rng.normal());
      EXPECT_NEAR(log_sum_exp(x), reference(x), 2e-6) << n << " values, scale " << scale;
    }
  }
}

TEST(LogSumExp, Extremes) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  EXPECT_EQ(log_sum_exp({}), -std::numeric_limits<double>::infinity());
  std::vector<float> masked(100, -kInfinity);
  EXPECT_EQ(log_sum_exp(masked), -std::numeric_limits<double>::infinity());
  masked[57] = 2.5f;
  EXPECT_NEAR(log_sum_exp(masked), 2.5, 1e-6);
  EXPECT_NEAR(log_sum_exp(std::vector<float>(33, -1e30f)), -1e30, 1e24);
}

}  // namespace
}  // namespace tailor
