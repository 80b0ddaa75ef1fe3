#include "text/edit_distance.h"

#include <gtest/gtest.h>

#include <vector>

namespace tailor {
namespace {

TEST(EditDistance, HandCases) {
  EXPECT_EQ(edit_distance("kitten", "sitting", 10), 3U);
  EXPECT_EQ(edit_distance("", "abc", 10), 3U);
  EXPECT_EQ(edit_distance("same", "same", 0), 0U);
  EXPECT_EQ(edit_distance("arrival", "arrvial", 1), 1U);  // two neighbours swapped
  EXPECT_EQ(edit_distance("ca", "abc", 10), 3U);          // optimal string alignment, not full Damerau (2)
  EXPECT_EQ(edit_distance("kitten", "sitting", 2), 3U);   // above the limit: limit + 1
  EXPECT_EQ(edit_distance("abcdefgh", "a", 3), 4U);
}

TEST(NearestName, WithinAThirdOfTheLength) {
  const std::vector<std::string> names = {"Message", "intent", "label"};
  EXPECT_EQ(nearest_name("mesage", names), "Message");
  EXPECT_EQ(nearest_name("lable", names), "label");
  EXPECT_EQ(nearest_name("subject", names), "");
  EXPECT_EQ(nearest_name("x", {}), "");
}

}  // namespace
}  // namespace tailor
