#include "data/report.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "core/json.h"
#include "data/dataset.h"
#include "data/near_duplicates.h"

namespace tailor {
namespace {

/// Rows "<label> <i>-th distinct text" of these labels, in this order; lines from 2.
Dataset make(const std::vector<std::pair<std::string, int>>& labels) {
  Dataset data;
  data.files = {"in.csv"};
  for (const auto& [label, rows] : labels) data.label_names.push_back(label);
  std::sort(data.label_names.begin(), data.label_names.end());
  std::uint32_t line = 2;
  for (const auto& [label, rows] : labels) {
    const auto place =
        std::lower_bound(data.label_names.begin(), data.label_names.end(), label) - data.label_names.begin();
    for (int i = 0; i < rows; ++i) {
      data.texts.push_back(std::to_string(line * 7919) + " " + std::to_string(line * 104729));
      data.labels.push_back(static_cast<std::int32_t>(place));
      data.lines.push_back(line++);
      data.file_of.push_back(0);
    }
  }
  return data;
}

DataReport check(const Dataset& data, const TokenCounter& tokens = {}) {
  DataReport report;
  report.file = "in.csv";
  check_dataset(data, find_duplicates(data.texts), report, tokens);
  return report;
}

const Finding* find(const DataReport& report, std::string_view code) {
  for (const Finding& finding : report.findings) {
    if (finding.code == code) return &finding;
  }
  return nullptr;
}

TEST(Report, LengthsAreNumpysPercentiles) {
  const LengthSummary s = summarise_lengths({9, 1, 4, 16, 25, 36, 49, 64, 81, 100});
  EXPECT_EQ(s.min, 1U);
  EXPECT_EQ(s.max, 100U);
  EXPECT_DOUBLE_EQ(s.mean, 38.5);
  EXPECT_NEAR(s.p5, 2.35, 1e-12);  // numpy.percentile of the same ten numbers
  EXPECT_NEAR(s.p50, 30.5, 1e-12);
  EXPECT_NEAR(s.p90, 82.9, 1e-12);
  EXPECT_NEAR(s.p95, 91.45, 1e-12);
  EXPECT_NEAR(s.p99, 98.29, 1e-12);
  EXPECT_EQ(summarise_lengths({}).max, 0U);
  EXPECT_EQ(summarise_lengths({7}).p99, 7);
}

TEST(Report, CleanDataHasNoFindings) {
  const DataReport report = check(make({{"arrival", 30}, {"complaint", 40}}));
  EXPECT_TRUE(report.findings.empty()) << report.findings[0].message;
  EXPECT_TRUE(report.status());
  EXPECT_EQ(report.labels[1].label, "complaint");
  EXPECT_EQ(report.labels[1].rows, 40U);
  EXPECT_NEAR(report.imbalance_ratio, 4.0 / 3, 1e-12);
  EXPECT_FALSE(report.tokens.has_value());
}

TEST(Report, CountsCharactersAndTokens) {
  Dataset data = make({{"a", 1}, {"b", 1}});
  data.texts = {"caf\xC3\xA9", "two words"};
  const DataReport report = check(data, [](std::string_view text) { return text.size(); });
  EXPECT_EQ(report.characters.min, 4U);
  EXPECT_EQ(report.tokens.value().min, 5U);
  EXPECT_EQ(report.tokens.value().max, 9U);
}

TEST(Report, SingleClassAndAllDuplicatesAreErrors) {
  const DataReport single = check(make({{"only", 12}}));
  EXPECT_EQ(single.status().error().message, "in.csv: all 12 rows have the label 'only', expected at least two labels");
  Dataset same = make({{"arrival", 15}, {"complaint", 15}});
  for (std::size_t i = 0; i < same.size(); ++i) same.texts[i] = i % 2 == 0 ? "Same  text" : "same text ";
  const DataReport report = check(same);
  EXPECT_EQ(report.status().error().message, "in.csv: all 30 rows hold the same text");
  EXPECT_EQ(report.status().error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(report.exact_duplicates, 29U);
}

TEST(Report, LabelsThatAreAllDistinctAreAnError) {
  EXPECT_NE(find(check(make({{"red", 1}, {"green", 1}, {"blue", 1}})), "labels_all_distinct"), nullptr);
}

TEST(Report, DuplicatesAndConflicts) {
  Dataset data = make({{"arrival", 20}, {"complaint", 20}});
  data.texts[0] = "where is my card I have been waiting for it";
  data.texts[1] = "Where is my card I have been waiting for it";   // copy, same label
  data.texts[25] = "where is my card I have been waiting for it";  // copy, other label
  data.texts[2] = "where is my card I have been waiting for itt";  // near
  const DataReport report = check(data);
  EXPECT_EQ(report.exact_duplicates, 2U);
  EXPECT_EQ(report.near_duplicates, 2U);  // row 2 and its neighbour, row 0
  EXPECT_EQ(report.conflicting_duplicates, 3U);
  const Finding* const conflict = find(report, "conflicting_duplicates");
  ASSERT_NE(conflict, nullptr);
  EXPECT_EQ(conflict->severity, Severity::kWarning);
  EXPECT_EQ(conflict->lines, (std::vector<std::uint32_t>{2, 3, 27}));
  EXPECT_EQ(find(report, "exact_duplicates")->lines, (std::vector<std::uint32_t>{3, 27}));
  EXPECT_EQ(report.findings[0].severity, Severity::kWarning);  // warnings stand before notes
}

TEST(Report, LabelsSpelledInTwoWays) {
  const DataReport report = check(make({{"card_arrival", 150},
                                        {"card_arival", 3},
                                        {"Card Arrival", 30},
                                        {"refund", 40},
                                        {"refunds", 42},
                                        {"cat", 20},
                                        {"car", 20},
                                        {"form12", 20},
                                        {"form13", 20}}));
  std::vector<std::string> messages;
  for (const Finding& finding : report.findings) {
    if (finding.code == "similar_labels") messages.push_back(finding.message);
  }
  EXPECT_EQ(messages, (std::vector<std::string>{
                          "the labels 'Card Arrival' (30 rows) and 'card_arrival' (150 rows) differ only in case, "
                          "spaces or punctuation",
                          "the labels 'card_arival' (3 rows) and 'Card Arrival' (30 rows) differ by one letter",
                          "the labels 'card_arival' (3 rows) and 'card_arrival' (150 rows) differ by one letter",
                          "the labels 'refund' (40 rows) and 'refunds' (42 rows) differ by one letter",
                      }));
  EXPECT_EQ(report.findings.back().severity, Severity::kNote);  // refund, refunds: both are common
  EXPECT_EQ(report.findings.back().message, messages.back());
}

TEST(Report, ClassSizes) {
  const DataReport report = check(make({{"common", 200}, {"rarely", 4}, {"once", 1}}));
  EXPECT_EQ(find(report, "single_row_class")->message,
            "1 label with a single row can be used for training only, never tested: 'once'");
  EXPECT_EQ(find(report, "single_row_class")->lines, std::vector<std::uint32_t>{206});
  EXPECT_EQ(find(report, "small_class")->message,
            "1 label with fewer than 10 rows will have uncertain scores: 'rarely' (4)");
  EXPECT_EQ(find(report, "imbalance")->message, "the classes are uneven: 'common' has 200 rows, 'once' has 1 row");
  EXPECT_DOUBLE_EQ(report.imbalance_ratio, 200);
}

TEST(Report, LabelsThatLookLikeSomethingElse) {
  std::vector<std::pair<std::string, int>> prices, names;
  for (int i = 0; i < 25; ++i) prices.emplace_back(std::to_string(i * 10) + ".50", 10);
  EXPECT_NE(find(check(make(prices)), "numeric_labels"), nullptr);
  EXPECT_EQ(find(check(make({{"1", 10}, {"2", 10}, {"3", 10}})), "numeric_labels"), nullptr);  // stars
  for (int i = 0; i < 40; ++i)
    names.emplace_back("name " + std::string(1, static_cast<char>('a' + i % 26)) + std::to_string(i), 2);
  EXPECT_NE(find(check(make(names)), "too_many_labels"), nullptr);
  EXPECT_NE(find(check(make({{std::string(150, 'x') + " text", 10}, {"b", 10}})), "long_labels"), nullptr);
}

TEST(Report, Json) {
  DataReport report = check(make({{"arrival", 30}, {"once", 1}}));
  report.delimiter = ';';
  const Json json = to_json(report);
  EXPECT_EQ(json["delimiter"], ";");
  EXPECT_EQ(json["labels"][0]["rows"], 30);
  EXPECT_EQ(json["findings"][0]["severity"], "warning");
  EXPECT_TRUE(json["tokens"].is_null());
  EXPECT_EQ(json["characters"]["max"], report.characters.max);
}

}  // namespace
}  // namespace tailor
