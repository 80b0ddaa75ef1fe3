#include "infer/packed_linear.h"

#include <gtest/gtest.h>

#include <cmath>

#include "core/fast_math.h"
#include "core/rng.h"

namespace tailor {
namespace {

std::vector<float> random_values(Rng& rng, std::size_t n) {
  std::vector<float> v(n);
  for (float& x : v) x = static_cast<float>(rng.normal());
  return v;
}

TEST(PackedLinear, EqualsThePlainLoop) {
  Rng rng(1);
  struct Shape {
    std::size_t rows, in, out;
  };
  for (const Shape s : {Shape{1, 1, 1}, Shape{7, 5, 3}, Shape{6, 16, 16}, Shape{13, 33, 47}, Shape{200, 400, 40},
                        Shape{5, 800, 17}, Shape{385, 9, 32}}) {
    const std::vector<float> weight = random_values(rng, s.out * s.in), bias = random_values(rng, s.out),
                             x = random_values(rng, s.rows * s.in);
    const PackedLinear with_bias(weight, bias, s.in, s.out), without(weight, {}, s.in, s.out);
    std::vector<float> y(s.rows * s.out + 1, 77.0f), z = y;
    with_bias.forward(x.data(), s.rows, y.data());
    without.forward(x.data(), s.rows, z.data());
    for (std::size_t r = 0; r < s.rows; ++r) {
      for (std::size_t o = 0; o < s.out; ++o) {
        double sum = 0;
        for (std::size_t i = 0; i < s.in; ++i) sum += static_cast<double>(x[r * s.in + i]) * weight[o * s.in + i];
        EXPECT_NEAR(y[r * s.out + o], sum + bias[o], 1e-4) << s.rows << "x" << s.in << "x" << s.out;
        EXPECT_NEAR(z[r * s.out + o], sum, 1e-4);
      }
    }
    EXPECT_EQ(y.back(), 77.0f) << "written past the end";
  }
}

TEST(FastMath, ExpAndGelu) {
  for (float x = -80; x <= 0; x += 0.0137f)
    EXPECT_NEAR(exp_nonpositive(x) / std::exp(static_cast<double>(x)), 1.0, 4e-7) << x;
  for (float x = -8; x <= 8; x += 0.0137f)
    EXPECT_NEAR(gelu(x), 0.5 * x * (1 + std::erf(x / std::sqrt(2.0))), 1e-6) << x;
  EXPECT_EQ(gelu(0), 0.0f);
  EXPECT_EQ(gelu(100), 100.0f);
}

}  // namespace
}  // namespace tailor
