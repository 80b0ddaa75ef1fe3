#include "text/offsets.h"

#include <gtest/gtest.h>

namespace tailor {
namespace {

TEST(Offsets, CountInTheUnitOfWhoAsks) {
  // One, two, three and four bytes a character; the last is two units of UTF-16.
  const std::string_view text = "aä€😀z";
  const std::size_t bytes[] = {0, 1, 3, 6, 10, 11};
  OffsetCounter points(text, OffsetUnit::kCodePoints), utf16(text, OffsetUnit::kUtf16), utf8(text, OffsetUnit::kUtf8);
  const std::size_t in_points[] = {0, 1, 2, 3, 4, 5}, in_utf16[] = {0, 1, 2, 3, 5, 6};
  for (std::size_t i = 0; i < 6; ++i) {
    EXPECT_EQ(points.at(bytes[i]), in_points[i]);
    EXPECT_EQ(utf16.at(bytes[i]), in_utf16[i]);
    EXPECT_EQ(utf8.at(bytes[i]), bytes[i]);
  }
  EXPECT_EQ(points.at(3), 2u);  // back again
  EXPECT_EQ(utf16.at(11), 6u);
}

TEST(Offsets, UnitsHaveNames) {
  for (const OffsetUnit unit : {OffsetUnit::kCodePoints, OffsetUnit::kUtf16, OffsetUnit::kUtf8})
    EXPECT_EQ(offset_unit(name_of(unit)), unit);
  EXPECT_FALSE(offset_unit("utf32").has_value());
}

}  // namespace
}  // namespace tailor
