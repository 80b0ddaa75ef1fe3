#include "fit/table.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <sstream>

#include "fit/report_format.h"

namespace tailor {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

TrialRecord scored(std::string method, std::string base, double accuracy) {
  TrialRecord r;
  r.id = base.empty() ? method : method + "." + base;
  r.method = std::move(method);
  r.base_model = std::move(base);
  r.status = TrialStatus::kOk;
  r.settings = Json{{"c", 1.0}};
  r.n_scored = 1000;
  r.scores.accuracy = {accuracy, accuracy - 0.009, accuracy + 0.011};
  r.scores.macro_precision = {accuracy - 0.01, accuracy - 0.02, accuracy};
  r.scores.macro_recall = {accuracy - 0.02, accuracy - 0.03, accuracy - 0.01};
  r.scores.macro_f1 = {accuracy - 0.03, accuracy - 0.05, accuracy - 0.02};
  r.test_score = accuracy;
  r.train_seconds = 185;
  r.peak_memory_bytes = 512'000'000;
  r.latency_p50_ms = 5.94;
  r.latency_p95_ms = 8.31;
  r.trained_bytes = 118'272;
  r.cost_per_thousand = 0.000166;
  r.verdict = "tie";
  r.p_value = 0.347;
  return r;
}

TrialRecord unfinished(std::string method, TrialStatus status, std::string reason) {
  TrialRecord r;
  r.id = r.method = std::move(method);
  r.status = status;
  r.reason = std::move(reason);
  return r;
}

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  return lines;
}

std::string line_with(const std::string& text, const std::string& word) {
  for (const auto& line : lines_of(text)) {
    if (line.find(word) != std::string::npos) return line;
  }
  return "";
}

TEST(DisplayWidth, CountsColumnsOfATerminal) {
  EXPECT_EQ(display_width("abc"), 3u);
  EXPECT_EQ(display_width("±–…"), 3u);
  EXPECT_EQ(display_width("e\xCC\x81"), 1u);  // e and a combining acute accent
  EXPECT_EQ(display_width("日本語"), 6u);
  EXPECT_EQ(display_width("🙂"), 2u);
  EXPECT_EQ(display_width("a\xE2\x80\x8B"
                          "b"),
            2u);                             // zero-width space
  EXPECT_EQ(display_width("\xFF\xFE"), 2u);  // not UTF-8: one replacement each
}

TEST(TerminalText, BreaksAtSpacesUnderTheFirstWord) {
  EXPECT_EQ(reflow("short\nlines", 10), "short\nlines");
  EXPECT_EQ(reflow("one two three four", 9), "one two\nthree\nfour");
  EXPECT_EQ(reflow("  - one two three", 11), "  - one two\n    three");
  EXPECT_EQ(reflow("· ein Häuschen im Grünen", 12), "· ein\n  Häuschen\n  im Grünen");
  EXPECT_EQ(reflow("see /a/very/long/path here", 8), "see\n/a/very/long/path\nhere");
  EXPECT_EQ(reflow("name    value of it", 16), "name    value of\nit");
  EXPECT_EQ(reflow("a\n\n", 8), "a\n\n");
}

TEST(FitWidth, CutsWithoutBreakingACharacter) {
  EXPECT_EQ(fit_width("features", 10), "features  ");
  EXPECT_EQ(fit_width("12", 5, true), "   12");
  EXPECT_EQ(fit_width("features", 5), "feat…");
  EXPECT_EQ(fit_width("日本語", 4), "日… ");  // the second would need columns 3 and 4 beside the mark
  EXPECT_EQ(display_width(fit_width("日本語です", 7)), 7u);
}

TEST(Format, NumbersAsThePagesShowThem) {
  EXPECT_EQ(format_percent(0.92913), "92.9 %");
  EXPECT_EQ(format_plus_minus({0.9, 0.88, 0.91}), "90.0 ±2.0");
  EXPECT_EQ(format_count(1234567), "1,234,567");
  EXPECT_EQ(format_ms(0.0512), "0.05");
  EXPECT_EQ(format_ms(1274.2), "1,274");
  EXPECT_EQ(format_significant(0.000166, 2), "0.00017");
  EXPECT_EQ(format_cost(0.0000031), "<0.00001");
  EXPECT_EQ(format_p(0.00004), "p < 0.001");
  EXPECT_EQ(format_p(0.347), "p = 0.35");
  EXPECT_EQ(format_short_seconds(185), "3m05s");
  EXPECT_EQ(format_settings(Json{{"learning_rate", 3e-5}, {"epochs", 3}}), "learning rate = 3e-05, epochs = 3");
  EXPECT_EQ(metric_name("cost:costs.json").format(-0.25), "0.250");
  EXPECT_EQ(metric_name("f1:spam").title, "F1 of spam");
}

TEST(TerminalTable, ShowsTheFiguresOfTheRecords) {
  const auto table = make_comparison_table({scored("features", "all-minilm-l6-v2", 0.929)},
                                           {.recommended = "features.all-minilm-l6-v2", .n_test = 1000});
  const std::string line = line_with(terminal_table(table), "features");
  for (const char* expected : {"> features", "all-minilm-l6-v2", "92.9 ±1.1", "89.9 ±2.0", "3m05s", "512 MB", "5.9/8.3",
                               "118 kB", "0.00017", "tie"}) {
    EXPECT_THAT(line, HasSubstr(expected));
  }
}

TEST(TerminalTable, BestFirstAndUnfinishedAtTheBottomWithTheirReason) {
  const auto table = make_comparison_table(
      {unfinished("lora_decoder", TrialStatus::kSkipped, "needs about 41 min, the budget has 6 min left"),
       scored("tfidf", "", 0.8), unfinished("full", TrialStatus::kFailed, "out of memory"), scored("knn", "m", 0.9)},
      {});
  std::vector<std::string> order;
  for (const auto& row : table.rows) order.push_back(row.method);
  EXPECT_THAT(order, ::testing::ElementsAre("knn", "tfidf", "full", "lora_decoder"));
  const std::string text = terminal_table(table);
  EXPECT_THAT(text, HasSubstr("failed: out of memory"));
  EXPECT_THAT(text, HasSubstr("skipped: needs about 41 min, the budget has 6 min left"));
}

TEST(TerminalTable, KeepsItsWidthWithAnyNames) {
  std::vector<TrialRecord> trials = {
      scored("features", "all-minilm-l6-v2", 0.93),
      scored("few_shot_retrieved_demonstrations", "日本語の大きなモデル-7b-instruct", 0.9),
      scored("zero_shot", std::string(200, 'x'), 0.5),
      unfinished("lora", TrialStatus::kFailed, std::string(300, 'y') + " and " + std::string(80, 'z'))};
  trials[1].latency_p50_ms = 12345;
  trials[1].latency_p95_ms = 98765;
  for (const std::size_t width : {80u, 100u, 120u, 160u, 240u}) {
    for (const auto& line :
         lines_of(terminal_table(make_comparison_table(trials, {.n_test = 5000}), {.width = width}))) {
      EXPECT_LE(display_width(line), width) << line;
    }
  }
}

TEST(TerminalTable, MarksDefaultOnlyAndSamples) {
  TrialRecord few = scored("few_shot", "m", 0.9);
  few.default_only = true;
  few.n_scored = 500;
  const auto table = make_comparison_table({few, scored("knn", "m", 0.8)}, {.n_test = 3080});
  const std::string text = terminal_table(table);
  EXPECT_THAT(line_with(text, "few_shot"), HasSubstr("few_shot ¹²"));
  EXPECT_THAT(text, HasSubstr("¹ default only"));
  EXPECT_THAT(text, HasSubstr("500 of the 3,080 test rows"));
  EXPECT_THAT(line_with(text, "knn"), HasSubstr("knn ³"));  // 1,000 rows: another sample
}

TEST(TerminalTable, HostileNamesCannotMoveTheCursor) {
  TrialRecord r = scored("knn", "evil\x1b[2J\r\nmodel", 0.9);
  const std::string text =
      terminal_table(make_comparison_table({r, unfinished("a\x1b]0;x\x07", TrialStatus::kFailed, "b\rc\x1b[31m")}, {}));
  EXPECT_EQ(text.find('\x1b'), std::string::npos);
  EXPECT_EQ(text.find('\r'), std::string::npos);
}

TEST(TerminalTable, TheUsersMetricHasAColumn) {
  TrialRecord r = scored("knn", "m", 0.9);
  r.test_score = -0.3125;
  EXPECT_THAT(line_with(terminal_table(make_comparison_table({r}, {.metric = "cost:costs.json"})), "knn"),
              HasSubstr("0.312"));
  r.test_score = 0.654;
  const std::string text = terminal_table(make_comparison_table({r}, {.metric = "f1:spam"}));
  EXPECT_THAT(text, HasSubstr("F1 of spam"));
  EXPECT_THAT(text, HasSubstr("65.4 %"));
}

TEST(TerminalTable, EmptyIsNotACrash) {
  EXPECT_THAT(terminal_table(make_comparison_table({}, {})), HasSubstr("method"));
}

TEST(MarkdownTable, EscapesAndKeepsItsColumns) {
  const auto table =
      make_comparison_table({scored("a|b", "<script>", 0.9), unfinished("c", TrialStatus::kSkipped, "x | y\nz")},
                            {.recommended = "a|b.<script>"});
  const std::string text = markdown_table(table);
  EXPECT_THAT(text, HasSubstr("**a\\|b** (recommended)"));
  EXPECT_THAT(text, Not(HasSubstr("<script>")));
  std::vector<std::size_t> bars;
  for (const auto& line : lines_of(text)) {
    if (!line.starts_with("|")) continue;
    std::size_t n = 0;
    for (std::size_t i = 0; i < line.size(); ++i) n += line[i] == '|' && (i == 0 || line[i - 1] != '\\') ? 1 : 0;
    bars.push_back(n);
  }
  ASSERT_EQ(bars.size(), 4u);
  EXPECT_TRUE(std::all_of(bars.begin(), bars.end(), [&](std::size_t n) { return n == bars[0]; }));
  EXPECT_THAT(text, HasSubstr("90.0 \\[89.1–91.1\\]"));
}

TEST(HtmlTable, SortsByNumbersAndEscapes) {
  const auto table = make_comparison_table({scored("knn", "<b>m</b>", 0.9)},
                                           {.recommended = "knn.<b>m</b>", .titles = {{"knn", "Nearest & dearest"}}});
  const std::string html = html_table(table);
  EXPECT_THAT(html, HasSubstr("data-v=\"0.9\""));
  EXPECT_THAT(html, HasSubstr("data-v=\"512000000\""));
  EXPECT_THAT(html, HasSubstr("&lt;b&gt;m&lt;/b&gt;"));
  EXPECT_THAT(html, HasSubstr("Nearest &amp; dearest"));
  EXPECT_THAT(html, HasSubstr("recommended"));
}

}  // namespace
}  // namespace tailor
