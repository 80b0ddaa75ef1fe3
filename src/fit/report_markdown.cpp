#include "fit/report_markdown.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "eval/metrics.h"
#include "fit/budget.h"
#include "fit/report_figures.h"
#include "fit/report_format.h"
#include "fit/report_words.h"
#include "text/unicode.h"

namespace tailor {
namespace {

constexpr std::size_t kWeakClasses = 20;
constexpr std::size_t kPairs = 15;
constexpr std::size_t kWrongRows = 25;
constexpr std::size_t kTextLength = 160;

/// Between backticks nothing is markup; a backtick inside would end it.
std::string code(std::string text) {
  std::replace(text.begin(), text.end(), '`', '\'');
  return "`" + one_line(text) + "`";
}

std::string classes(const ReportInput& input, const Predictions& p) {
  Tally t(static_cast<int>(input.label_names.size()));
  for (std::size_t i = 0; i < p.size(); ++i) {
    if (p.truth[i] >= 0) t.add(p.truth[i], p.predicted[i]);
  }
  const auto scores = class_scores(t);
  std::vector<std::size_t> order;
  for (std::size_t c = 0; c < scores.size(); ++c) order.push_back(c);
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return scores[a].f1 < scores[b].f1; });
  const std::size_t shown = std::min(kWeakClasses, order.size());
  std::string out = "\n## Class by class\n\n";
  if (shown < order.size()) out += fmt::format("The {} weakest of {} classes.\n\n", shown, order.size());
  out += "| Class | Test rows | Precision | Recall | F1 |\n|---|---:|---:|---:|---:|\n";
  for (std::size_t i = 0; i < shown; ++i) {
    const ClassScore& s = scores[order[i]];
    out += fmt::format("| {} | {} | {} | {} | {} |\n", escape_markdown(input.label_names[order[i]]), s.support,
                       format_percent(s.precision), format_percent(s.recall), format_percent(s.f1));
  }
  return out;
}

std::string confusions(const ReportInput& input, const Predictions& p) {
  const auto pairs = confused_pairs(p);
  if (pairs.empty()) return "";
  std::string out =
      "\n## Most frequent confusions\n\n| True class | Predicted | Rows | Of the class |\n|---|---|---:|---:|\n";
  for (std::size_t i = 0; i < std::min(kPairs, pairs.size()); ++i) {
    const auto& pair = pairs[i];
    out += fmt::format(
        "| {} | {} | {} | {} |\n", escape_markdown(label_name(input, pair.truth)),
        escape_markdown(label_name(input, pair.predicted)), pair.rows,
        format_percent(static_cast<double>(pair.rows) / static_cast<double>(std::max<std::size_t>(pair.support, 1))));
  }
  return out;
}

std::string confidence(const ReportInput& input, std::size_t at, const Predictions& p) {
  const Predictions& choose = validation_of(input, at).size() > 0 ? validation_of(input, at) : p;
  static constexpr std::array<double, 6> kShares = {0, 0.05, 0.10, 0.20, 0.30, 0.50};
  std::string out =
      "\n## Hand the unsure ones to a person\n\n| Threshold | Handed to a person | Accuracy of the rest | Wrong "
      "answers in 1,000 messages |\n|---:|---:|---:|---:|\n";
  for (const auto& row : hand_over(p, choose, kShares)) {
    out += fmt::format("| {} | {} | {} | {} |\n", row.wanted == 0 ? "none" : fmt::format("{:.3f}", row.threshold),
                       format_percent(row.handed), row.handed >= 1 ? "–" : format_percent(row.accuracy),
                       format_significant(row.wrong_per_thousand, 2));
  }
  return out;
}

std::string wrong(const ReportInput& input, const Predictions& p) {
  const auto rows = wrong_rows(p);
  if (rows.empty()) return "";
  std::string out =
      fmt::format("\n## Rows answered wrongly\n\n{} of {}; the most certain first{}.\n\n", format_count(rows.size()),
                  format_count(p.size()),
                  rows.size() > kWrongRows ? fmt::format(", {} shown, more in report.html", kWrongRows) : "");
  const bool texts = !input.texts.empty();
  out += texts ? "| Line | Text | Truth | Predicted | Confidence |\n|---:|---|---|---|---:|\n"
               : "| Line | Truth | Predicted | Confidence |\n|---:|---|---|---:|\n";
  for (std::size_t k = 0; k < std::min(kWrongRows, rows.size()); ++k) {
    const std::size_t i = rows[k];
    const auto row = static_cast<std::size_t>(p.rows[i]);
    out += "| " + escape_markdown(row_place(input, p.rows[i])) + " |";
    if (texts)
      out += " " + (row < input.texts.size() ? escape_markdown(shorten(input.texts[row], kTextLength)) : "") + " |";
    out += fmt::format(" {} | {} | {} |\n", escape_markdown(label_name(input, p.truth[i])),
                       escape_markdown(label_name(input, p.predicted[i])), format_percent(confidence_of(p, i)));
  }
  return out;
}

}  // namespace

std::string report_markdown(const ReportInput& input) {
  const ReportAnswer answer = report_answer(input);
  std::string out = "# " + escape_markdown(answer.headline + (answer.on.empty() ? "" : " " + answer.on)) + "\n\n";
  for (const auto& sentence : answer.sentences) out += escape_markdown(sentence) + "\n\n";
  for (const auto& warning : answer.warnings) out += "> " + escape_markdown(warning) + "\n\n";
  if (!answer.unfinished.empty()) out += escape_markdown(answer.unfinished) + "\n\n";
  if (!answer.would_change.empty()) {
    out += "What would change the answer:\n\n";
    for (const auto& item : answer.would_change) out += "- " + escape_markdown(item) + "\n";
    out += "\n";
  }
  out += "## All candidates\n\n" + markdown_table(comparison_table(input));
  const std::size_t at = recommended_trial(input);
  if (at != kNoTrial && test_of(input, at).size() > 0) {
    const Predictions& p = test_of(input, at);
    out += classes(input, p) + confusions(input, p) + confidence(input, at, p) + wrong(input, p);
  }
  if (!input.advice_against_measured.empty())
    out += "\n## Advice and measurement\n\n" + escape_markdown(input.advice_against_measured) + "\n";
  const auto findings = data_findings(input);
  const auto facts = data_facts(input);
  if (!facts.empty() || !findings.empty()) {
    out += "\n## The data\n\n";
    for (const auto& [name, value] : facts)
      out += fmt::format("- {}: {}\n", escape_markdown(name), escape_markdown(value));
    for (const auto& f : findings)
      out += fmt::format("- **{}**: {}{}\n", escape_markdown(f.severity), escape_markdown(f.message),
                         f.hint.empty() ? "" : " " + escape_markdown(f.hint));
  }
  const auto budget = budget_lines(input);
  if (!budget.empty()) {
    out += "\n## The budget\n\n| At | Candidate | Decision | Given | Reason |\n|---:|---|---|---:|---|\n";
    for (const auto& line : budget) {
      out +=
          fmt::format("| {} | {} | {} | {} | {} |\n", human_seconds(line.elapsed_seconds),
                      escape_markdown(line.candidate), escape_markdown(line.decision),
                      line.given_seconds > 0 ? human_seconds(line.given_seconds) : "–", escape_markdown(line.reason));
    }
  }
  out += "\n## To repeat this run\n\n";
  for (const auto& command : repeat_commands(input)) out += "- " + code(command) + "\n";
  for (const auto& [name, value] : repeat_facts(input))
    out += fmt::format("- {}: {}\n", escape_markdown(name), escape_markdown(value));
  return out;
}

}  // namespace tailor
