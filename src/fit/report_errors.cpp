/// The rows each method got wrong.

#include <fmt/format.h>

#include <algorithm>
#include <unordered_map>

#include "fit/report_figures.h"
#include "fit/report_format.h"
#include "fit/report_sections.h"
#include "text/unicode.h"

namespace tailor {
namespace {

using WrongElsewhere = std::unordered_map<std::int64_t, std::pair<std::size_t, std::size_t>>;  // row -> wrong, answered

std::string wrong_row(const ReportInput& input, const Predictions& p, std::size_t i, const WrongElsewhere& by_row,
                      std::size_t text_length) {
  const auto row = static_cast<std::size_t>(p.rows[i]);
  std::string out = "<tr>";
  if (!input.texts.empty())
    out += text_cell(row < input.texts.size() ? shorten(input.texts[row], text_length) : "", "text");
  const double confidence = confidence_of(p, i);
  const auto [wrong, answered] = by_row.at(p.rows[i]);
  return out + label_cell(label_name(input, p.truth[i])) + label_cell(label_name(input, p.predicted[i])) +
         number_cell(confidence, format_percent(confidence)) +
         number_cell(static_cast<double>(wrong) / static_cast<double>(answered),
                     fmt::format("{} of {}", wrong, answered)) +
         number_cell(row < input.lines.size() ? input.lines[row] : static_cast<double>(row),
                     row_place(input, p.rows[i])) +
         "</tr>";
}

}  // namespace

std::string section_errors(const ReportInput& input) {
  WrongElsewhere by_row;
  std::vector<std::size_t> order;
  for (std::size_t t = 0; t < input.trials.size(); ++t) {
    const Predictions& p = test_of(input, t);
    if (!input.trials[t].ok() || p.size() == 0) continue;
    order.push_back(t);
    for (std::size_t i = 0; i < p.size(); ++i) {
      auto& [wrong, answered] = by_row[p.rows[i]];
      ++answered;
      wrong += p.truth[i] >= 0 && p.truth[i] != p.predicted[i] ? 1 : 0;
    }
  }
  if (order.empty()) return "";
  const std::size_t recommended = recommended_trial(input);
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    if ((a == recommended) != (b == recommended)) return a == recommended;
    return input.trials[a].test_score > input.trials[b].test_score;
  });
  std::string out = open_section(
      "errors", "Rows answered wrongly",
      std::string("The most certain mistakes first; “Wrong by” counts the candidates that got the row wrong. Rows that "
                  "nearly all get wrong are often labelled wrongly, or could have either label.") +
          (input.texts.empty() ? " Texts were left out on request; the line numbers lead to them." : ""));
  // Most rows of the recommended, and an even share of what is left for the others, so that the file stays small.
  std::size_t bytes_left = kWrongRowsBytes;
  for (std::size_t k = 0; k < order.size(); ++k) {
    const std::size_t t = order[k];
    const Predictions& p = test_of(input, t);
    const bool first = k == 0;
    const auto wrong = wrong_rows(p);
    const std::string id = fmt::format("wrong-{}", t);
    const std::size_t share = first ? bytes_left / 2 : bytes_left / (order.size() - k);
    std::string rows;
    std::size_t shown = 0;
    for (const std::size_t i : wrong) {
      if (shown == kWrongRowsPerMethod) break;
      std::string row = wrong_row(input, p, i, by_row, first ? kReportTextLength : kReportTextLength / 2);
      if (rows.size() + row.size() > share) break;
      rows += row;
      ++shown;
    }
    bytes_left -= rows.size();
    const std::string count =
        shown < wrong.size() ? fmt::format("{} of {} rows wrong, the {} most certain shown", format_count(wrong.size()),
                                           format_count(p.size()), shown)
                             : fmt::format("{} of {} rows wrong", format_count(wrong.size()), format_count(p.size()));
    out += fmt::format(R"(<details{}><summary>{}{} <span class="muted">– {}</span></summary><div class="body">)",
                       first ? R"( open="")" : "", escape_html(short_trial_name(input, input.trials[t])),
                       t == recommended ? R"( <span class="badge">recommended</span>)" : "", escape_html(count));
    if (rows.empty()) {
      out += paragraph(wrong.empty() ? "Not one." : "No room for them in this file.") + "</div></details>";
      continue;
    }
    if (first && shown > 10) out += fmt::format(R"(<div class="filter" data-filter="{}"></div>)", id);
    std::vector<std::string_view> headings = {"Text", "Truth", "Predicted", "#Confidence", "#Wrong by", "#Line"};
    if (input.texts.empty()) headings.erase(headings.begin());
    out +=
        open_table("Rows answered wrongly by " + short_trial_name(input, input.trials[t]), headings, true, true, id) +
        rows + std::string(kCloseTable) + "</div></details>";
  }
  return out + std::string(kCloseSection);
}

}  // namespace tailor
