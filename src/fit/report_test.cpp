#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

// GCC 12 with the address sanitizer sees values in <regex> that are not set (GCC bug 105562).
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include <regex>
#pragma GCC diagnostic pop

#include "core/rng.h"
#include "eval/metrics.h"
#include "fit/report_figures.h"
#include "fit/report_format.h"
#include "fit/report_html.h"
#include "fit/report_markdown.h"
#include "fit/report_sections.h"
#include "fit/report_style.h"
#include "fit/report_svg.h"

namespace tailor {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

/// What is wrong with `xml`, or "" where it is well-formed: tags nest, attributes are quoted and not repeated, and
/// every
/// "&" begins one of the entities that we write. Stricter than needed, since we write the file ourselves.
std::string xml_fault(const std::string& xml) {
  std::vector<std::string> open;
  std::size_t at = xml.find("<html");
  const auto near = [&](const std::string& what) { return what + " near: " + xml.substr(at > 40 ? at - 40 : 0, 120); };
  while (at < xml.size()) {
    if (xml[at] == '&') {
      static const std::regex kEntity("&(amp|lt|gt|quot|#39);");
      if (!std::regex_search(xml.begin() + static_cast<std::ptrdiff_t>(at),
                             xml.begin() + static_cast<std::ptrdiff_t>(std::min(at + 7, xml.size())), kEntity,
                             std::regex_constants::match_continuous)) {
        return near("a bare ampersand");
      }
    }
    if (xml[at] != '<') {
      const auto byte = static_cast<unsigned char>(xml[at]);
      if (byte < 0x20 && byte != '\n' && byte != '\t' && byte != '\r') return near("a control character");
      if (open.empty() && byte > ' ') return near("text outside the root");
      ++at;
      continue;
    }
    const std::size_t end = xml.find('>', at);
    if (end == std::string::npos) return near("a tag without an end");
    std::string tag = xml.substr(at + 1, end - at - 1);
    if (tag.starts_with("/")) {
      if (open.empty() || open.back() != tag.substr(1))
        return near("</" + tag.substr(1) + "> closes " + (open.empty() ? "nothing" : open.back()));
      open.pop_back();
    } else {
      const bool single = tag.ends_with("/");
      if (single) tag.pop_back();
      static const std::regex kTag(R"re([a-z][a-z0-9]*(\s+[a-zA-Z][a-zA-Z0-9:-]*="[^"<]*")*\s*)re");
      if (!std::regex_match(tag, kTag)) return near("a malformed tag");
      if (!single) open.push_back(tag.substr(0, tag.find_first_of(" \n")));
    }
    at = end + 1;
  }
  return open.empty() ? "" : "<" + open.back() + "> is not closed";
}

/// A run on made-up data: `candidates` of falling quality, one more failed and one skipped.
ReportInput made_up(std::size_t rows, std::size_t classes, std::size_t candidates, std::uint64_t seed = 7) {
  ReportInput in;
  Rng rng(seed);
  std::vector<int> truth;
  for (std::size_t c = 0; c < classes; ++c) in.label_names.push_back("intent_" + std::to_string(c));
  for (std::size_t i = 0; i < rows; ++i) {
    truth.push_back(static_cast<int>(rng.below(classes)));
    in.texts.push_back("Hello, I have a question about matter number " + std::to_string(i) +
                       " and would like an answer before Friday, please.");
    in.lines.push_back(static_cast<std::uint32_t>(i + 2));
  }
  for (std::size_t k = 0; k < candidates; ++k) {
    TrialRecord t;
    t.method = "method_" + std::to_string(k);
    t.base_model = k % 2 == 0 ? "small-encoder" : "";
    t.id = t.method;
    t.status = TrialStatus::kOk;
    std::vector<std::uint32_t> ids;
    Matrix probabilities(rows, classes);
    for (std::size_t i = 0; i < rows; ++i) {
      ids.push_back(static_cast<std::uint32_t>(i));
      auto row = probabilities.row(i);
      double sum = 0;
      for (std::size_t c = 0; c < classes; ++c) {
        row[c] = static_cast<float>(std::exp(
            3 * rng.uniform() + (static_cast<int>(c) == truth[i] ? 2.0 - 0.15 * static_cast<double>(k) : 0.0)));
        sum += row[c];
      }
      for (auto& p : row) p /= static_cast<float>(sum);
    }
    in.test.push_back(make_predictions(ids, truth, std::move(probabilities)));
    const Predictions& p = in.test.back();
    const Tally tallied = tally(p.truth, p.predicted, static_cast<int>(classes));
    const double a = accuracy(tallied);
    t.n_scored = rows;
    t.test_score = a;
    t.scores.accuracy = {a, a - 0.01, a + 0.01};
    t.scores.macro_f1 = {a, a - 0.02, a + 0.02};
    t.validation_score = a;
    t.n_validation = rows;
    t.train_seconds = 10.0 * static_cast<double>(k + 1);
    t.latency_p50_ms = 2 + static_cast<double>(k);
    t.latency_p95_ms = 3 + static_cast<double>(k);
    t.cost_per_thousand = 0.0001 * static_cast<double>(k + 1);
    t.peak_memory_bytes = 300'000'000;
    t.package_bytes = 46'000'000;
    t.trained_bytes = 118'000;
    t.verdict = k == 0 ? "best" : "worse";
    t.p_value = 0.01;
    t.settings = Json{{"c", 1.0}};
    t.search = Json::array({Json{{"settings", {{"c", 1.0}}}, {"score", a}, {"seconds", 2.0}, {"rows", rows}},
                            Json{{"settings", {{"c", 10.0}}}, {"score", nullptr}, {"seconds", 2.0}, {"rows", rows}}});
    in.trials.push_back(t);
  }
  for (const auto& [method, status, reason] : {std::tuple{"too_large", TrialStatus::kFailed, "out of memory"},
                                               std::tuple{"too_slow", TrialStatus::kSkipped, "needs 41 min"}}) {
    TrialRecord t;
    t.id = t.method = method;
    t.status = status;
    t.reason = reason;
    in.trials.push_back(t);
    in.test.emplace_back();
  }
  if (candidates > 0) in.decision.recommended = in.decision.best = "method_0";
  in.decision.reason = "method_0 scores highest.";
  in.decision.would_change = {"A limit of 2 ms would."};
  in.options.data = "inquiries.csv";
  in.options.out = "run-1";
  in.result = Json{{"split", {{"train", 100}, {"validation", 20}, {"test", rows}}},
                   {"data",
                    {{"rows_read", 120 + rows},
                     {"labels", Json::array({Json{{"label", "intent_0"}, {"rows", 50}}})},
                     {"findings", Json::array()}}},
                   {"budget_decisions", Json::array({Json{{"kind", "share"},
                                                          {"id", "method_0"},
                                                          {"run", true},
                                                          {"seconds", 60.0},
                                                          {"reason", ""},
                                                          {"elapsed_seconds", 3.0}}})},
                   {"command", "tailor fit inquiries.csv"},
                   {"elapsed_seconds", 61.0}};
  in.advice = Json{{"headline", "Measure."}, {"reasons", {"because"}}};
  return in;
}

std::string without_tags(const std::string& html) {
  return std::regex_replace(html, std::regex("<[^>]*>"), "");
}

TEST(ReportHtml, IsWellFormed) {
  for (const std::size_t classes : {2u, 12u, 40u})
    EXPECT_EQ(xml_fault(report_html(made_up(150, classes, 5))), "") << classes;
}

TEST(ReportHtml, EscapesHostileTextsAndLabels) {
  ReportInput in = made_up(60, 5, 3);
  const std::string hostile = "</script><script>alert(1)</script>\"'><img src=x onerror=alert(2)>]]>&amp;<!-- \x01\xFF";
  for (auto& name : in.label_names) name += hostile;
  for (auto& text : in.texts) text = hostile;
  for (auto& trial : in.trials) {
    trial.method += hostile;
    trial.base_model += hostile;
    trial.reason = hostile;
    trial.notes = {hostile};
    trial.settings = Json{{hostile, hostile}};
  }
  in.decision.reason = in.advice_against_measured = hostile;
  in.decision.would_change = {hostile};
  in.options.data = hostile;
  in.file_names = {hostile, hostile};
  in.file_of.assign(in.texts.size(), 1);
  in.result["command"] = hostile;
  in.result["data"]["findings"] =
      Json::array({Json{{"severity", hostile}, {"message", hostile}, {"hint", hostile}, {"lines", {1, 2}}}});
  in.advice = Json{{"headline", hostile}, {"facts", {hostile}}};
  in.options.metric = "f1:" + hostile;
  const std::string html = report_html(in);
  EXPECT_EQ(xml_fault(html), "");
  EXPECT_THAT(html, Not(HasSubstr("<img")));
  EXPECT_THAT(html, Not(HasSubstr("<script>alert")));
  EXPECT_THAT(html, Not(HasSubstr("]]>")));
  EXPECT_THAT(html, HasSubstr("&lt;script&gt;alert(1)"));
  in.result["command"] = "";  // stands between backticks, where nothing is markup
  const std::string markdown = report_markdown(in);
  EXPECT_FALSE(std::regex_search(markdown, std::regex(R"((^|[^\\])<(img|script|!--))")));
}

TEST(ReportHtml, LoadsNothing) {
  ReportInput in = made_up(60, 3, 2);
  in.texts[0] = in.texts[1] = in.texts[2] = "see https://example.org/x.png";
  const std::string html = report_html(in);
  for (const char* loader : {" src=", "url(", "@import", "<link", "<iframe", "<object", "<embed", "href=\"http",
                             "fetch(", "XMLHttpRequest", "srcset"}) {
    EXPECT_THAT(html, Not(HasSubstr(loader)));
  }
  EXPECT_THAT(html, HasSubstr("default-src 'none'"));
}

TEST(ReportHtml, ScriptIsAllowedByItsHashAndHoldsNoMarkup) {
  EXPECT_EQ(report_script().find_first_of("<&"), std::string_view::npos);
  EXPECT_EQ(report_css().find_first_of("<&"), std::string_view::npos);
  EXPECT_THAT(report_html({}), ::testing::ContainsRegex("script-src 'sha256-[A-Za-z0-9+/]+=*'"));
}

TEST(ReportHtml, NoTextsLeavesNone) {
  ReportInput in = made_up(80, 4, 2);
  EXPECT_THAT(report_html(in), HasSubstr("matter number"));
  EXPECT_THAT(report_markdown(in), HasSubstr("matter number"));
  in.texts.clear();
  EXPECT_THAT(report_html(in), Not(HasSubstr("matter number")));
  EXPECT_THAT(report_markdown(in), Not(HasSubstr("matter number")));
  EXPECT_THAT(report_html(in), HasSubstr("Texts were left out"));
}

TEST(ReportHtml, LongTextsAreCut) {
  ReportInput in = made_up(40, 2, 1);
  for (auto& text : in.texts) text = std::string(200'000, 'w');
  EXPECT_LT(report_html(in).size(), 200'000u);
}

TEST(ReportHtml, StaysSmallForALargeRun) {
  const ReportInput in = made_up(3080, 77, 12);
  const std::string html = report_html(in);
  EXPECT_LT(html.size(), 3'000'000u);
  EXPECT_EQ(xml_fault(html), "");
}

TEST(ReportHtml, StaysSmallWithHostilelyLongTexts) {
  ReportInput in = made_up(1500, 10, 12);
  for (auto& text : in.texts) text = std::string(5000, '&');
  EXPECT_LT(report_html(in).size(), 3'000'000u);
}

TEST(ReportHtml, ShowsTheFiguresOfTheInput) {
  ReportInput in = made_up(500, 6, 3);
  const std::string text = without_tags(report_html(in));
  for (const auto& t : in.trials) {
    if (!t.ok()) continue;
    EXPECT_THAT(text, HasSubstr(format_percent_bare(t.scores.accuracy.value) + " [" +
                                format_interval(t.scores.accuracy) + "]"));
  }
  const auto scores = class_scores(tally(in.test[0].truth, in.test[0].predicted, 6));
  for (const auto& s : scores) EXPECT_THAT(text, HasSubstr(format_percent(s.recall)));
  EXPECT_THAT(text, HasSubstr("needs 41 min"));
  EXPECT_THAT(text, HasSubstr("tailor fit inquiries.csv"));
}

TEST(ReportHtml, NothingFinishedIsStillAReport) {
  ReportInput in = made_up(10, 2, 0);
  in.decision.reason = "No candidate finished, so there is nothing to recommend.";
  const std::string html = report_html(in);
  EXPECT_EQ(xml_fault(html), "");
  EXPECT_THAT(html, HasSubstr("No candidate finished"));
  EXPECT_THAT(report_markdown(in), HasSubstr("out of memory"));
  EXPECT_EQ(xml_fault(report_html({})), "");
  EXPECT_THAT(report_markdown({}), HasSubstr("No candidate"));
}

TEST(ReportHtml, SingleCandidateWithoutMistakes) {
  ReportInput in = made_up(30, 2, 1);
  in.test[0].predicted = in.test[0].truth;
  const std::string html = report_html(in);
  EXPECT_EQ(xml_fault(html), "");
  EXPECT_THAT(html, HasSubstr("Not one"));
}

TEST(ReportHtml, OutOfScopeSectionWhereThereIsSuchALabel) {
  ReportInput in = made_up(100, 4, 2);
  EXPECT_THAT(report_html(in), Not(HasSubstr("id=\"scope\"")));
  in.label_names[2] = "Out_of_Scope";
  EXPECT_THAT(report_html(in), HasSubstr("id=\"scope\""));
  EXPECT_EQ(out_of_scope_label(in.label_names, ""), 2);
  EXPECT_EQ(out_of_scope_label(in.label_names, "intent_1"), 1);
  EXPECT_EQ(out_of_scope_label({"a", "Other"}, ""), 1);
  EXPECT_EQ(out_of_scope_label({"a", "another"}, ""), -1);
}

// --- figures --------------------------------------------------------------------------------------------------------

/// Two labels; the first has the given probability.
Predictions of(const std::vector<float>& first, const std::vector<int>& truth) {
  std::vector<std::uint32_t> ids;
  Matrix m(first.size(), 2);
  for (std::size_t i = 0; i < first.size(); ++i) {
    ids.push_back(static_cast<std::uint32_t>(10 + i));
    m.row(i)[0] = first[i];
    m.row(i)[1] = 1 - first[i];
  }
  return make_predictions(ids, truth, std::move(m));
}

TEST(Figures, ReliabilityAgreesWithTheExpectedCalibrationError) {
  const ReportInput in = made_up(700, 9, 1);
  const Predictions& p = in.test[0];
  double ece = 0;
  std::size_t rows = 0;
  for (const auto& bin : reliability_bins(p, 15)) {
    ece += static_cast<double>(bin.rows) / 700 * std::abs(bin.accuracy - bin.confidence);
    rows += bin.rows;
  }
  EXPECT_EQ(rows, 700u);
  EXPECT_NEAR(ece, expected_calibration_error(p.truth, p.probabilities, 15), 1e-9);
}

TEST(Figures, CoverageByHand) {
  // Confidences 0.9 right, 0.8 wrong, 0.8 right, 0.6 wrong.
  const Predictions p = of({0.9F, 0.8F, 0.2F, 0.6F}, {0, 1, 1, 1});
  const auto curve = coverage_curve(p);
  ASSERT_EQ(curve.size(), 3u);  // the two of 0.8 go together
  EXPECT_DOUBLE_EQ(curve[0].answered, 1);
  EXPECT_DOUBLE_EQ(curve[0].accuracy, 0.5);
  EXPECT_DOUBLE_EQ(curve[1].answered, 0.75);
  EXPECT_NEAR(curve[1].accuracy, 2.0 / 3, 1e-12);
  EXPECT_DOUBLE_EQ(curve[2].answered, 0.25);
  EXPECT_DOUBLE_EQ(curve[2].accuracy, 1);
}

TEST(Figures, HandOverTakesThresholdsFromValidation) {
  const Predictions test = of({0.9F, 0.8F, 0.7F, 0.6F}, {0, 0, 1, 1});
  const Predictions validation = of({0.95F, 0.85F, 0.75F, 0.65F}, {0, 0, 0, 0});
  const std::vector<double> shares = {0, 0.5};
  const auto rows = hand_over(test, validation, shares);
  ASSERT_EQ(rows.size(), 2u);
  EXPECT_DOUBLE_EQ(rows[0].handed, 0);
  EXPECT_DOUBLE_EQ(rows[0].accuracy, 0.5);
  EXPECT_DOUBLE_EQ(rows[0].wrong_per_thousand, 500);
  EXPECT_FLOAT_EQ(static_cast<float>(rows[1].threshold), 0.85F);
  EXPECT_DOUBLE_EQ(rows[1].handed, 0.75);  // 0.8 lies below the threshold of validation
  EXPECT_DOUBLE_EQ(rows[1].accuracy, 1);
  EXPECT_TRUE(hand_over({}, {}, shares).empty());
}

TEST(Figures, ConfusedPairsAndWrongRows) {
  const Predictions p = of({0.9F, 0.7F, 0.4F, 0.99F}, {1, 1, 0, 0});
  const auto pairs = confused_pairs(p);
  ASSERT_EQ(pairs.size(), 2u);
  EXPECT_EQ(pairs[0].truth, 1);
  EXPECT_EQ(pairs[0].predicted, 0);
  EXPECT_EQ(pairs[0].rows, 2u);
  EXPECT_EQ(pairs[0].support, 2u);
  EXPECT_THAT(wrong_rows(p), ::testing::ElementsAre(0, 1, 2));  // the most certain first
}

TEST(Svg, LabelsDoNotOverlapWhereThereIsRoom) {
  std::vector<PlacedLabel> labels;
  for (int i = 0; i < 8; ++i) labels.push_back({300.0 + i, 150.0 + i, 90, 14, {}, false});  // nearly one point
  place_labels(labels, {}, {0, 0, 600, 300});
  for (std::size_t i = 0; i < labels.size(); ++i) {
    const Box& a = labels[i].box;
    EXPECT_GE(a.x, 0);
    EXPECT_LE(a.x + a.w, 600);
    for (std::size_t j = i + 1; j < labels.size(); ++j) {
      const Box& b = labels[j].box;
      EXPECT_TRUE(a.x + a.w <= b.x || b.x + b.w <= a.x || a.y + a.h <= b.y || b.y + b.h <= a.y) << i << " and " << j;
    }
  }
}

TEST(Svg, ScalesAndTicks) {
  const Scale linear{0.8, 1.0, 200, 0};
  EXPECT_DOUBLE_EQ(linear(0.8), 200);
  EXPECT_NEAR(linear(0.9), 100, 1e-9);
  const auto ticks = linear.ticks(4);
  ASSERT_EQ(ticks.size(), 5u);
  EXPECT_NEAR(ticks[1], 0.85, 1e-9);
  const Scale logarithmic{0.001, 10, 0, 400, true};
  EXPECT_NEAR(logarithmic(0.1), 200, 1e-9);
  EXPECT_EQ(logarithmic.ticks(7).size(), 5u);
  EXPECT_TRUE(quality_range({{0.93, 0.92, 0.94}, {0.91, 0.9, 0.92}, {0.01, 0.01, 0.02}}).cut);
  EXPECT_FALSE(quality_range({{0.93, 0.92, 0.94}, {0.91, 0.9, 0.92}}).cut);
}

}  // namespace
}  // namespace tailor
