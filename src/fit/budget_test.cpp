#include "fit/budget.h"

#include <gtest/gtest.h>

#include <numeric>

namespace tailor {
namespace {

TEST(ShareBudget, EverybodyGetsWhatTheyWantWhenThereIsEnough) {
  const auto a = share_budget({{"x", 10, 2, 1, 1, 0}, {"y", 50, 5, 1, 1, 1}}, 1000, 100);
  EXPECT_TRUE(a[0].run && a[1].run);
  EXPECT_DOUBLE_EQ(a[0].seconds, 10);
  EXPECT_DOUBLE_EQ(a[1].seconds, 50);
}

TEST(ShareBudget, TheRestIsSharedByWeightAndUnusedSharesGoOn) {
  // 100 - 10 reserved - 3 * 10 minimum = 60 left; x wants only 2 more, so y and z share 58 as 1 : 3.
  const auto a = share_budget({{"x", 12, 10, 0, 1, 0}, {"y", 1000, 10, 0, 1, 0}, {"z", 1000, 10, 0, 3, 0}}, 100, 10);
  EXPECT_DOUBLE_EQ(a[0].seconds, 12);
  EXPECT_DOUBLE_EQ(a[1].seconds, 10 + 14.5);
  EXPECT_DOUBLE_EQ(a[2].seconds, 10 + 43.5);
}

TEST(ShareBudget, LowestPriorityIsLeftOutWithItsEstimate) {
  const auto a =
      share_budget({{"floor", 1, 1, 1, 1, 0}, {"dear", 900, 300, 20, 1, 9}, {"fit", 60, 20, 5, 1, 3}}, 100, 10);
  EXPECT_TRUE(a[0].run);
  EXPECT_FALSE(a[1].run);
  EXPECT_TRUE(a[2].run);
  EXPECT_NE(a[1].reason.find("5 min"), std::string::npos) << a[1].reason;
  EXPECT_NE(a[1].reason.find("15 min"), std::string::npos) << a[1].reason;
}

TEST(ShareBudget, NeverGivesOutMoreThanThereIs) {
  const std::vector<BudgetItem> items{
      {"a", 70, 5, 3, 2, 0}, {"b", 400, 30, 8, 1, 1}, {"c", 90, 10, 0, 5, 2}, {"d", 33, 33, 1, 1, 3}};
  for (double budget : {0.0, 5.0, 20.0, 60.0, 100.0, 300.0, 1000.0}) {
    const auto allotments = share_budget(items, budget, 7);
    double spent = 0;
    for (std::size_t i = 0; i < items.size(); ++i) {
      if (allotments[i].run) spent += allotments[i].seconds + items[i].score_seconds;
    }
    if (spent > 0) {
      EXPECT_LE(spent, budget - 7 + 1e-9) << budget;
    }
  }
}

TEST(Human, ReadsLikeAPersonWrites) {
  EXPECT_EQ(human_seconds(0.44), "0.4 s");
  EXPECT_EQ(human_seconds(185), "3 min 05 s");
  EXPECT_EQ(human_seconds(300), "5 min");
  EXPECT_EQ(human_seconds(4805), "1 h 20 min");
  EXPECT_EQ(human_bytes(999), "999 B");
  EXPECT_EQ(human_bytes(1.23e9), "1.2 GB");
  EXPECT_EQ(human_bytes(87654321), "88 MB");
}

}  // namespace
}  // namespace tailor
