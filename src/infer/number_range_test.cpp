#include "infer/number_range.h"

#include <gtest/gtest.h>

#include <fmt/format.h>

#include "infer/test_constraints.h"

namespace tailor {
namespace {

using testing::allows;

std::shared_ptr<const Constraint> compiled(Json schema) {
  return testing::smollm_compiler().compile(testing::schema_spec(std::move(schema))).value();
}

/// All integers around the bounds, for bounds drawn at random.
TEST(NumberRange, IntegersAreExactlyThoseBetweenTheBounds) {
  Rng rng(1);
  for (int round = 0; round < 60; ++round) {
    const int a = static_cast<int>(rng.below(260)) - 130, b = static_cast<int>(rng.below(260)) - 130;
    const int low = std::min(a, b), high = std::max(a, b);
    const bool low_open = rng.below(2) == 0, high_open = rng.below(2) == 0, has_low = rng.below(4) > 0,
               has_high = rng.below(4) > 0;
    Json schema = {{"type", "integer"}};
    if (has_low) schema[low_open ? "exclusiveMinimum" : "minimum"] = low;
    if (has_high) schema[high_open ? "exclusiveMaximum" : "maximum"] = high;
    if (has_low && has_high && high - low < 2) continue;
    const auto constraint = compiled(schema);
    for (int i = -145; i <= 145; ++i) {
      const bool inside = (!has_low || i >= low + (low_open ? 1 : 0)) && (!has_high || i <= high - (high_open ? 1 : 0));
      EXPECT_EQ(allows(constraint, std::to_string(i)), inside) << i << " of " << schema;
    }
    for (const char* text : {"007", "-0", "1.0", "1e1", "+1", "-"})
      EXPECT_FALSE(allows(constraint, text)) << text << " of " << schema;
  }
}

/// Decimals of two digits behind the point, in steps of 0.05, whole ones also without.
TEST(NumberRange, NumbersAreExactlyThoseBetweenTheBounds) {
  Rng rng(2);
  for (int round = 0; round < 40; ++round) {
    const int a = static_cast<int>(rng.below(240)) - 120, b = static_cast<int>(rng.below(240)) - 120;  // of 0.05
    const int low = std::min(a, b), high = std::max(a, b);
    const bool low_open = rng.below(2) == 0, high_open = rng.below(2) == 0, has_low = rng.below(4) > 0,
               has_high = rng.below(4) > 0;
    const auto number = [](int steps) {
      return Json::parse(
          fmt::format("{}{}.{:02}", steps < 0 ? "-" : "", std::abs(steps) / 20, std::abs(steps) % 20 * 5));
    };
    Json schema = {{"type", "number"}};
    if (has_low) schema[low_open ? "exclusiveMinimum" : "minimum"] = number(low);
    if (has_high) schema[high_open ? "exclusiveMaximum" : "maximum"] = number(high);
    if ((!has_low && !has_high) || (has_low && has_high && low == high)) continue;
    const auto constraint = compiled(schema);
    for (int i = -130; i <= 130; ++i) {
      const bool inside =
          (!has_low || i > low || (i == low && !low_open)) && (!has_high || i < high || (i == high && !high_open));
      const std::string text = fmt::format("{}{}.{:02}", i < 0 ? "-" : "", std::abs(i) / 20, std::abs(i) % 20 * 5);
      EXPECT_EQ(allows(constraint, text), inside) << text << " of " << schema;
      if (i % 20 == 0) {
        EXPECT_EQ(allows(constraint, std::to_string(i / 20)), inside) << i / 20 << " of " << schema;
      }
      if (i % 2 == 0) {
        EXPECT_EQ(allows(constraint, text.substr(0, text.size() - 1)), inside) << text << " of " << schema;
      }
    }
  }
}

TEST(NumberRange, DigitsBehindABoundDecide) {
  const auto above = compiled({{"type", "number"}, {"exclusiveMinimum", 0.1}, {"maximum", 2}});
  EXPECT_TRUE(allows(above, "0.1000000001"));
  EXPECT_FALSE(allows(above, "0.1000000000"));
  EXPECT_FALSE(allows(above, "0.0999999999"));
  EXPECT_TRUE(allows(above, "2.000"));
  EXPECT_FALSE(allows(above, "2.0000001"));
  const auto small = compiled({{"type", "number"}, {"minimum", 1e-7}, {"maximum", 2.5e-7}});
  EXPECT_TRUE(allows(small, "0.0000001"));
  EXPECT_TRUE(allows(small, "0.00000025"));
  EXPECT_FALSE(allows(small, "0.000000251"));
  EXPECT_FALSE(allows(small, "0.00000009"));
}

TEST(NumberRange, BoundsBeyondAllDigitsForbidNothing) {
  const auto constraint =
      compiled({{"type", "number"}, {"minimum", -1.7976931348623157e308}, {"maximum", 3.4028234663852886e38}});
  EXPECT_TRUE(allows(constraint, "-12.5"));
  EXPECT_TRUE(allows(constraint, "999999999999999"));
  testing::expect_error(numbers_in({.low = Json(1e20)}), ErrorCode::kInvalidArgument, "no number");
}

}  // namespace
}  // namespace tailor
