#include "eval/metric.h"

#include <gtest/gtest.h>

#include "core/files.h"

namespace tailor {
namespace {

const std::vector<std::string> kLabels = {"ham", "spam", "other"};
const std::vector<int> kTruth = {0, 0, 1, 1, 2};
const std::vector<int> kPredicted = {0, 1, 1, 0, 2};

TEST(Metric, ParsesEveryKindAndScoresIt) {
  EXPECT_DOUBLE_EQ(Metric::parse("accuracy", kLabels)->score(kTruth, kPredicted, 3), 0.6);
  EXPECT_DOUBLE_EQ(Metric::parse("macro_f1", kLabels)->score(kTruth, kPredicted, 3), (0.5 + 0.5 + 1.0) / 3);
  const auto spam = Metric::parse("f1:spam", kLabels).value();
  EXPECT_EQ(spam.name(), "f1:spam");
  EXPECT_DOUBLE_EQ(spam.score(kTruth, kPredicted, 3), 0.5);
}

TEST(Metric, CostsAreNegatedAndUnnamedMistakesCostOne) {
  const auto rows = Metric::parse("cost:[[0,10,1],[2,0,1],[1,1,0]]", kLabels).value();
  EXPECT_DOUBLE_EQ(rows.score(kTruth, kPredicted, 3), -(10.0 + 2.0) / 5.0);
  EXPECT_DOUBLE_EQ(rows.shown(-2.5), 2.5);
  EXPECT_DOUBLE_EQ(rows.row_cost(0, kNoAnswer), 10.0);
  const auto named = Metric::parse(R"(cost:{"ham": {"spam": 10}})", kLabels).value();
  EXPECT_DOUBLE_EQ(named.score(kTruth, kPredicted, 3), -(10.0 + 1.0) / 5.0);
}

TEST(Metric, ReadsACostFile) {
  TemporaryDirectory dir;
  const auto file = dir.path() / "costs.json";
  write_file_atomic(file, "[[0,1,1],[4,0,1],[1,1,0]]").value();
  const auto metric = Metric::parse("cost:" + file.string(), kLabels).value();
  EXPECT_DOUBLE_EQ(metric.score(kTruth, kPredicted, 3), -1.0);
}

TEST(Metric, ErrorsNameWhatIsThere) {
  const auto unknown = Metric::parse("acuracy", kLabels);
  ASSERT_FALSE(unknown);
  EXPECT_NE(to_string(unknown.error()).find("macro_f1"), std::string::npos);
  const auto label = Metric::parse("f1:spma", kLabels);
  ASSERT_FALSE(label);
  EXPECT_NE(to_string(label.error()).find("ham, spam, other"), std::string::npos);
  EXPECT_FALSE(Metric::parse("cost:[[0,1],[1,0]]", kLabels));
  EXPECT_FALSE(Metric::parse(R"(cost:[[0,"x",1],[1,0,1],[1,1,0]])", kLabels));
  EXPECT_FALSE(Metric::parse(R"(cost:{"hum": {"spam": 1}})", kLabels));
  EXPECT_FALSE(Metric::parse("cost:[[0,1", kLabels));
  EXPECT_FALSE(Metric::parse("cost:no-such-file.json", kLabels));
}

}  // namespace
}  // namespace tailor
