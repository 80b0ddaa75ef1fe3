#include "core/json_flaw.h"

#include <gtest/gtest.h>

#include <string>

namespace tailor {
namespace {

std::size_t offset_in(const std::string& text) {
  const auto flaw = find_json_flaw(text);
  return flaw ? flaw->offset : std::string::npos;
}

TEST(JsonFlaw, OffsetOfTheFirstWrongByte) {
  EXPECT_EQ(offset_in(R"({"a": [1, x]})"), 10U);
  EXPECT_EQ(offset_in("[1]]"), 3U);
  EXPECT_EQ(offset_in("[1,\n\"\xC3(\"]"), 6U);
  EXPECT_EQ(offset_in("[1, 2"), 5U);  // ends too early
  EXPECT_EQ(offset_in(""), 0U);
  EXPECT_EQ(offset_in(std::string(1000000, '[')), 1000000U);
}

TEST(JsonFlaw, NoneWhereTheTextIsValidOrANumberTooLarge) {
  EXPECT_FALSE(find_json_flaw(R"({"a": [1, null, true, "\u00e4", -2.5e3]})"));
  EXPECT_FALSE(find_json_flaw("[1e999]"));
}

TEST(JsonFlaw, ReasonIsThatOfTheParser) {
  EXPECT_TRUE(find_json_flaw("[1 2]")->reason.starts_with("syntax error while parsing array - unexpected number"));
}

}  // namespace
}  // namespace tailor
