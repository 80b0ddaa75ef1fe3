#include "data/near_duplicates.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>

#include "core/json.h"
#include "core/rng.h"
#include "data/leaks.h"

namespace tailor {
namespace {

using RowPair = std::pair<std::uint32_t, std::uint32_t>;

std::set<RowPair> rows_of(const std::vector<NearPair>& pairs) {
  std::set<RowPair> rows;
  for (const NearPair& pair : pairs) rows.emplace(pair.first, pair.second);
  return rows;
}

Json golden() {
  const char* const source = std::getenv("TAILOR_SOURCE_DIR");
  EXPECT_NE(source, nullptr);
  return read_json(std::filesystem::path(source == nullptr ? "." : source) / "tests/golden/data/near_duplicates.json")
      .value();
}

TEST(NearDuplicates, FindsWhatBruteForceFindsAndAllThatDatasketchFinds) {
  const Json reference = golden();
  const auto texts = reference["texts"].get<std::vector<std::string>>();
  const DuplicateGroups found = find_duplicates(texts);
  std::set<RowPair> rows = rows_of(found.near);
  for (std::uint32_t row = 0; row < texts.size(); ++row) {
    if (found.exact_of[row] != row) rows.emplace(found.exact_of[row], row);
  }
  // Texts of one skeleton stand for each other, so a pair is found where its two groups of equal skeletons are linked.
  for (const Json& pair : reference["pairs"]) {
    const auto a = pair[0].get<std::uint32_t>();
    const auto b = pair[1].get<std::uint32_t>();
    EXPECT_EQ(found.group[a], found.group[b]) << texts[a] << "\n" << texts[b];
    EXPECT_NEAR(text_similarity(texts[a], texts[b]), pair[2].get<double>(), 1e-12);
  }
  std::set<RowPair> expected;
  for (const Json& pair : reference["pairs"]) expected.emplace(pair[0], pair[1]);
  for (const RowPair& pair : rows)
    EXPECT_TRUE(expected.contains(pair)) << texts[pair.first] << "\n" << texts[pair.second];
  for (const Json& pair : reference["datasketch"])
    EXPECT_EQ(found.group[pair[0].get<std::size_t>()], found.group[pair[1].get<std::size_t>()]);
}

TEST(NearDuplicates, SimilarityEqualsTheReferenceBelowTheThresholdToo) {
  const Json reference = golden();
  const auto texts = reference["texts"].get<std::vector<std::string>>();
  for (const Json& entry : reference["similarities"]) {
    EXPECT_NEAR(text_similarity(texts[entry[0].get<std::size_t>()], texts[entry[1].get<std::size_t>()]),
                entry[2].get<double>(), 1e-12);
  }
}

TEST(NearDuplicates, HandCases) {
  EXPECT_EQ(text_similarity("Where is my card?", "where is my CARD"), 1.0);
  EXPECT_EQ(text_similarity("abcdef", "abcdeg"), 1.0 / 3);  // {abcde, bcdef} and {abcde, bcdeg}
  EXPECT_EQ(text_similarity("ab", "ac"), 0.0);
  EXPECT_EQ(text_similarity("\xF0\x9F\x91\x8D", "\xF0\x9F\x91\x8E"),
            0.0);  // thumbs up and down are all the text there is
}

TEST(NearDuplicates, ExactAndNearAreToldApartAndGrouped) {
  const std::vector<std::string> texts = {"Where is my new card please, I ordered it last week", "something else",
                                          "where is my  NEW card please, I ordered it last week",
                                          "Where is my new card please, I ordered it last weeks",
                                          "Where is my new card please - I ordered it last week!"};
  const DuplicateGroups found = find_duplicates(texts);
  EXPECT_EQ(found.exact_of, (std::vector<std::uint32_t>{0, 1, 0, 3, 4}));
  EXPECT_EQ(found.group, (std::vector<std::uint32_t>{0, 1, 0, 0, 0}));
  EXPECT_EQ(rows_of(found.near), (std::set<RowPair>{{0, 3}, {0, 4}}));
}

TEST(NearDuplicates, AcrossSets) {
  const std::vector<std::string> train = {"my boiler leaks since this morning", "rent is late", "rent is late"};
  const std::vector<std::string> test = {"Rent is late", "my boiler leaks since this mornin", "hello", "rent is late!"};
  const CrossDuplicates found = find_cross_duplicates(train, test);
  EXPECT_EQ(rows_of(found.exact), (std::set<RowPair>{{1, 0}}));
  EXPECT_EQ(rows_of(found.near), (std::set<RowPair>{{0, 1}, {1, 3}}));
}

TEST(NearDuplicates, ManyCopiesAndEmptyInputCostNothing) {
  EXPECT_TRUE(find_duplicates({}).group.empty());
  const std::vector<std::string> texts(20000, "the same text again and again");
  const DuplicateGroups found = find_duplicates(texts);
  EXPECT_EQ(found.group.back(), 0U);
  EXPECT_TRUE(found.near.empty());
}

TEST(NearDuplicates, SameSeedSameResultOtherSeedSamePairs) {
  const auto texts = golden()["texts"].get<std::vector<std::string>>();
  EXPECT_EQ(find_duplicates(texts).group, find_duplicates(texts).group);
  EXPECT_EQ(find_duplicates(texts).group, find_duplicates(texts, {.seed = 99}).group);
}

TEST(Leaks, AreCountedByTestedRowAndReportedWithLines) {
  Dataset data;
  data.files = {"train.csv", "test.csv"};
  data.label_names = {"a", "b"};
  data.texts = {"my boiler leaks since this morning",  "rent is late", "RENT is late ",
                "my boiler leaks since this mornings", "hello there",  "rent is  late"};
  data.labels = {0, 1, 1, 0, 0, 1};
  data.lines = {2, 3, 2, 3, 4, 5};
  data.file_of = {0, 0, 1, 1, 1, 1};
  const std::vector<std::uint32_t> train = {0, 1};
  const std::vector<std::uint32_t> test = {2, 3, 4, 5};
  const Leaks leaks = find_leaks(data, train, test);
  EXPECT_EQ(rows_of(leaks.exact), (std::set<RowPair>{{1, 2}, {1, 5}}));
  EXPECT_EQ(rows_of(leaks.near), (std::set<RowPair>{{0, 3}}));
  EXPECT_EQ(leaks.exact_rows, 2U);
  EXPECT_EQ(leaks.near_rows, 1U);
  DataReport report;
  add_leak_findings(data, leaks, 4, "training", "test", report);
  ASSERT_EQ(report.findings.size(), 2U);
  EXPECT_EQ(report.findings[0].message,
            "2 of 4 test rows stand word for word in the training rows as well (test.csv line 2 as train.csv:3, 5 as "
            "train.csv:3)");
  EXPECT_EQ(report.findings[1].code, "near_leaks");
  EXPECT_EQ(report.findings[1].lines, std::vector<std::uint32_t>{3});
  const Json json = to_json(leaks, data);
  EXPECT_EQ(json["exact"][0]["tested"]["file"], "test.csv");
  EXPECT_EQ(json["near"][0]["training"]["line"], 2);
}

}  // namespace
}  // namespace tailor
