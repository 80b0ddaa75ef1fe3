#include "data/split.h"

#include <gtest/gtest.h>

#include <map>
#include <numeric>
#include <set>

#include "core/files.h"
#include "core/rng.h"
#include "data/split_manifest.h"

namespace tailor {
namespace {

std::vector<std::uint32_t> no_groups(std::size_t n) {
  std::vector<std::uint32_t> groups(n);
  std::iota(groups.begin(), groups.end(), 0U);
  return groups;
}

/// `sizes[c]` rows of class c, interleaved.
std::vector<std::int32_t> labels_of(const std::vector<int>& sizes) {
  std::vector<std::int32_t> labels;
  for (std::size_t c = 0; c < sizes.size(); ++c)
    labels.insert(labels.end(), static_cast<std::size_t>(sizes[c]), static_cast<std::int32_t>(c));
  Rng rng(3);
  rng.shuffle(labels);
  return labels;
}

std::map<std::int32_t, int> count(const std::vector<std::int32_t>& labels, const std::vector<std::uint32_t>& rows) {
  std::map<std::int32_t, int> counts;
  for (const std::uint32_t row : rows) ++counts[labels[row]];
  return counts;
}

using PerClass = std::map<std::int32_t, int>;

TEST(Split, HoldoutIsStratifiedToTheRow) {
  const auto labels = labels_of({100, 60, 40});
  const SplitPlan plan =
      make_split(labels, no_groups(200), {.validation_fraction = 0.15, .test_fraction = 0.2}).value();
  EXPECT_EQ(plan.mode, SplitMode::kHoldout);
  EXPECT_EQ(count(labels, plan.rows_of(Part::kTest)), (PerClass{{0, 20}, {1, 12}, {2, 8}}));
  EXPECT_EQ(count(labels, plan.rows_of(Part::kValidation)), (PerClass{{0, 15}, {1, 9}, {2, 6}}));
  EXPECT_EQ(count(labels, plan.rows_of(Part::kTrain)), (PerClass{{0, 65}, {1, 39}, {2, 26}}));
  EXPECT_EQ(std::set<std::uint8_t>(plan.fold.begin(), plan.fold.end()), std::set<std::uint8_t>{kNoFold});
}

TEST(Split, SameSeedSameSplitOtherSeedOtherSplit) {
  const auto labels = labels_of({100, 60, 40});
  const auto groups = no_groups(200);
  EXPECT_EQ(make_split(labels, groups, {.seed = 4}).value().part, make_split(labels, groups, {.seed = 4}).value().part);
  EXPECT_NE(make_split(labels, groups, {.seed = 4}).value().part, make_split(labels, groups, {.seed = 5}).value().part);
}

TEST(Split, GroupsStayInOnePartAndOneFold) {
  const auto labels = labels_of({300, 200, 100});
  std::vector<std::uint32_t> groups = no_groups(600);
  Rng rng(8);
  for (std::uint32_t row = 1; row < 600; ++row) {
    if (rng.uniform() < 0.4) groups[row] = groups[rng.below(row)];  // chains of all sizes, labels mixed
  }
  for (const std::size_t least : {std::size_t{20}, std::size_t{1000}}) {
    const SplitPlan plan = make_split(labels, groups, {.min_rows_per_class_for_holdout = least}).value();
    EXPECT_EQ(plan.mode, least == 20 ? SplitMode::kHoldout : SplitMode::kKFold);
    for (std::uint32_t row = 0; row < 600; ++row) {
      EXPECT_EQ(plan.part[row], plan.part[groups[row]]);
      EXPECT_EQ(plan.fold[row], plan.fold[groups[row]]);
    }
    const auto test = count(labels, plan.rows_of(Part::kTest));
    EXPECT_NEAR(test.at(0), 60, 6);
    EXPECT_NEAR(test.at(1), 40, 5);
    EXPECT_NEAR(test.at(2), 20, 4);
  }
}

TEST(Split, CopiesFallIntoTheTestPartInProportion) {
  std::vector<std::int32_t> labels(2000);
  std::vector<std::uint32_t> groups(2000);
  for (std::uint32_t row = 0; row < 2000; ++row) {
    labels[row] = row % 4 < 2 ? 0 : 1;
    groups[row] = row < 1000 ? row / 4 * 4 + row % 4 / 2 * 2 : row;  // half of the rows are pairs of one label
  }
  const SplitPlan plan = make_split(labels, groups, {.test_fraction = 0.2}).value();
  const auto test = plan.rows_of(Part::kTest);
  EXPECT_EQ(test.size(), 400U);
  EXPECT_NEAR(
      static_cast<double>(std::count_if(test.begin(), test.end(), [](std::uint32_t row) { return row < 1000; })), 200,
      50);
}

TEST(Split, SmallClassesMakeFolds) {
  const auto labels = labels_of({30, 12, 7});
  const SplitPlan plan = make_split(labels, no_groups(49), {.test_fraction = 0}).value();
  EXPECT_EQ(plan.mode, SplitMode::kKFold);
  EXPECT_EQ(plan.folds, 5);
  for (int k = 0; k < 5; ++k) {
    const auto held_out = count(labels, plan.fold_held_out(k));
    EXPECT_EQ(held_out.at(0), 6);
    EXPECT_TRUE(held_out.at(1) == 2 || held_out.at(1) == 3);
    EXPECT_TRUE(held_out.at(2) == 1 || held_out.at(2) == 2);
    EXPECT_EQ(plan.fold_held_out(k).size() + plan.fold_train(k).size(), 49U);
    EXPECT_NEAR(static_cast<double>(plan.fold_held_out(k).size()), 49.0 / 5, 1);
  }
}

TEST(Split, FewerFoldsWhereTheSmallestClassHasFewerRowsAndNeverOne) {
  EXPECT_EQ(make_split(labels_of({30, 3}), no_groups(33), {.test_fraction = 0}).value().folds, 3);
  EXPECT_EQ(make_split(labels_of({30, 2}), no_groups(32), {.test_fraction = 0}).value().folds, 2);
}

TEST(Split, SmallestTrainingClassDecidesTheMode) {
  EXPECT_EQ(make_split(labels_of({200, 25}), no_groups(225), {.test_fraction = 0.2}).value().mode,
            SplitMode::kHoldout);  // 20 left
  EXPECT_EQ(make_split(labels_of({200, 24}), no_groups(224), {.test_fraction = 0.2}).value().mode,
            SplitMode::kKFold);  // 19 left
}

TEST(Split, ClassOfOneRowIsInTrainingOfEveryFold) {
  const auto labels = labels_of({30, 12, 1});
  const SplitPlan plan = make_split(labels, no_groups(43), {}).value();
  EXPECT_EQ(plan.folds, 5);
  EXPECT_EQ(count(labels, plan.rows_of(Part::kTest)).count(2), 0U);
  for (int k = 0; k < plan.folds; ++k) EXPECT_EQ(count(labels, plan.fold_train(k)).at(2), 1);
}

TEST(Split, ClassesOfAFewRowsKeepTwoForTraining) {
  const auto labels = labels_of({30, 3, 2});
  const auto groups = no_groups(35);
  const SplitPlan plan = make_split(labels, groups, {}).value();
  EXPECT_EQ(count(labels, plan.rows_of(Part::kTest)), (PerClass{{0, 6}, {1, 1}}));
  EXPECT_EQ(count(labels, plan.rows_of(Part::kTrain)), (PerClass{{0, 24}, {1, 2}, {2, 2}}));
}

TEST(Split, AClassOfCopiesIsTrainingOnly) {
  std::vector<std::int32_t> labels(60, 0);
  std::vector<std::uint32_t> groups = no_groups(60);
  for (std::size_t row = 30; row < 60; ++row) {
    labels[row] = 1;
    groups[row] = 30;
  }
  const SplitPlan plan = make_split(labels, groups, {}).value();
  EXPECT_EQ(count(labels, plan.rows_of(Part::kTrain)).at(1), 30);
}

TEST(Split, AClassOfLargeGroupsStillReachesTheTestPart) {
  std::vector<std::int32_t> labels(100, 0);
  std::vector<std::uint32_t> groups = no_groups(100);
  for (std::uint32_t row = 50; row < 100; ++row) {
    labels[row] = 1;
    groups[row] = row / 25 * 25;  // two groups of 25; 10 rows are wanted for the test part
  }
  const SplitPlan plan = make_split(labels, groups, {.test_fraction = 0.2}).value();
  EXPECT_EQ(count(labels, plan.rows_of(Part::kTest)).at(1), 25);
  EXPECT_EQ(count(labels, plan.rows_of(Part::kTrain)).at(1), 25);
}

TEST(Split, GivenPartsStay) {
  const auto labels = labels_of({100, 60});
  std::vector<Part> given(160, Part::kTrain);
  for (std::size_t row = 120; row < 160; ++row) given[row] = Part::kTest;
  SplitPlan plan =
      make_split(labels, no_groups(160), {.validation_fraction = 0.25, .test_fraction = 0.5}, given).value();
  EXPECT_EQ(plan.rows_of(Part::kTest).size(), 40U);
  EXPECT_EQ(plan.rows_of(Part::kTest).front(), 120U);
  EXPECT_NEAR(static_cast<double>(plan.rows_of(Part::kValidation).size()), 30, 1);
  for (std::size_t row = 100; row < 120; ++row) given[row] = Part::kValidation;
  plan = make_split(labels, no_groups(160), {.min_rows_per_class_for_holdout = 1000}, given).value();
  EXPECT_EQ(plan.mode, SplitMode::kHoldout);  // a validation part that is given is used
  EXPECT_EQ(plan.rows_of(Part::kTrain).size(), 100U);
}

TEST(Split, BadOptionsAreErrors) {
  const auto labels = labels_of({30, 30});
  const auto groups = no_groups(60);
  EXPECT_FALSE(make_split(labels, groups, {.validation_fraction = 0}));
  EXPECT_FALSE(make_split(labels, groups, {.test_fraction = 1}));
  EXPECT_FALSE(make_split(labels, groups, {.test_fraction = -0.1}));
  EXPECT_FALSE(make_split(labels, groups, {.validation_fraction = 0.5, .test_fraction = 0.5}));
  EXPECT_FALSE(make_split(labels, groups, {.folds = 1}));
  EXPECT_EQ(make_split(std::vector<std::int32_t>(20, 0), no_groups(20), {}).error().message,
            "the training rows have a single label, expected at least two");
}

Dataset small_data() {
  Dataset data;
  data.files = {"dir/train.csv"};
  data.label_names = {"a", "b", "rare"};
  for (std::uint32_t row = 0; row < 25; ++row) {
    data.texts.push_back("text " + std::to_string(row));
    data.labels.push_back(row == 24 ? 2 : static_cast<std::int32_t>(row % 2));
    data.lines.push_back(row + 2);
    data.file_of.push_back(0);
  }
  return data;
}

DuplicateGroups ungrouped(std::size_t n) {
  DuplicateGroups duplicates;
  duplicates.group = duplicates.exact_of = no_groups(n);
  return duplicates;
}

TEST(Split, FindingsNameClassesThatCannotBeTested) {
  const SplitPlan plan = make_split(small_data(), ungrouped(25), {}).value();
  ASSERT_EQ(plan.findings.size(), 2U);
  EXPECT_EQ(plan.findings[0].code, "train_only_class");
  EXPECT_EQ(plan.findings[0].message,
            "1 label with a single row (or copies of one) can be used for training only: 'rare'");
  EXPECT_EQ(plan.findings[0].lines, std::vector<std::uint32_t>{26});
  EXPECT_EQ(plan.findings[1].message,
            "choices are made by 5-fold cross-validation, since 'rare' has only 1 training row");
}

TEST(SplitManifest, IsReadBackAndHoldsNoTexts) {
  const TemporaryDirectory dir;
  const auto file = dir.path() / "split.jsonl";
  const Dataset data = small_data();
  const SplitPlan plan = make_split(data, ungrouped(25), {}).value();
  write_split_manifest(file, data, plan).value();
  const std::string bytes = read_file(file).value();
  EXPECT_EQ(bytes.find("text 1"), std::string::npos);
  EXPECT_TRUE(bytes.starts_with("{\"row\":0,\"file\":\"train.csv\",\"line\":2,\"part\":\""));
  const SplitPlan back = read_split_manifest(file, data).value();
  EXPECT_EQ(back.part, plan.part);
  EXPECT_EQ(back.fold, plan.fold);
  EXPECT_EQ(back.folds, plan.folds);
  EXPECT_EQ(back.mode, plan.mode);
}

TEST(SplitManifest, OtherDataIsRefused) {
  const TemporaryDirectory dir;
  const auto file = dir.path() / "split.jsonl";
  Dataset data = small_data();
  write_split_manifest(file, data, make_split(data, ungrouped(25), {}).value()).value();
  data.texts[3] += "!";
  EXPECT_TRUE(read_split_manifest(file, data)
                  .error()
                  .message.ends_with("split.jsonl:4: the text or label is not that of dir/train.csv line 5"));
  data.texts.pop_back();
  EXPECT_TRUE(read_split_manifest(file, data).error().message.ends_with("has 25 rows, the data has 24"));
  write_file_atomic(file, "{\"row\":0,\"part\":\"exam\"}\n").value();
  Dataset one = small_data();
  for (auto* v : {&one.lines}) v->resize(1);
  one.texts.resize(1);
  EXPECT_TRUE(
      read_split_manifest(file, one).error().message.ends_with("part is 'exam', expected train, validation or test"));
}

}  // namespace
}  // namespace tailor
