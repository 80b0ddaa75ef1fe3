/// The top of the report: the answer, the table and the charts of quality against cost.

#include <fmt/format.h>

#include "fit/budget.h"
#include "fit/report_charts.h"
#include "fit/report_format.h"
#include "fit/report_sections.h"
#include "fit/report_words.h"
#include "text/unicode.h"

namespace tailor {

std::string section_answer(const ReportInput& input) {
  const ReportAnswer answer = report_answer(input);
  std::string out = R"(<section id="answer"><p class="eyebrow">Recommendation</p><h1>)" + escape_html(answer.headline);
  if (!answer.on.empty()) out += R"( <span class="on">)" + escape_html(answer.on) + "</span>";
  out += "</h1>";
  for (std::size_t i = 0; i < answer.sentences.size(); ++i) out += paragraph(answer.sentences[i], i == 0 ? "lead" : "");
  const auto cards = key_figures(input);
  if (!cards.empty()) {
    out += R"(<div class="cards">)";
    for (const auto& card : cards) {
      out += fmt::format(
          R"(<div class="card"><div class="k">{}</div><div class="v">{}</div><div class="d">{}</div></div>)",
          escape_html(card.name), escape_html(card.value), escape_html(card.detail));
    }
    out += "</div>";
  }
  if (!answer.unfinished.empty()) out += paragraph(answer.unfinished, "muted");
  for (const auto& warning : answer.warnings) out += R"(<div class="callout warn">)" + paragraph(warning) + "</div>";
  if (!answer.would_change.empty()) out += "<h3>What would change the answer</h3>" + bullet_list(answer.would_change);
  return out + std::string(kCloseSection);
}

std::string section_table(const ReportInput& input) {
  std::string out = open_section("table", "All candidates",
                                 "Every candidate saw the same rows. Choices were made on validation rows; each was "
                                 "then scored once on the test part, through "
                                 "the package that would be deployed. “Tie” means that a paired test finds no real "
                                 "difference to the best on the same rows.");
  out += html_table(comparison_table(input));
  // What does not fit beside the scores.
  std::string more;
  for (const TrialRecord& t : input.trials) {
    if (!t.ok()) continue;
    const auto method = input.methods.find(t.method);
    std::string notes;
    for (const auto& note : t.notes) notes += (notes.empty() ? "" : " ") + note;
    more += R"(<tr><th scope="row">)" + escape_html(short_trial_name(input, t)) + "</th>" +
            text_cell(t.settings.empty() ? "–" : format_settings(t.settings), "wrap") +
            number_cell(t.cpu_seconds, human_seconds(t.cpu_seconds)) +
            number_cell(static_cast<double>(t.serve_memory_bytes),
                        t.serve_memory_bytes > 0 ? human_bytes(static_cast<double>(t.serve_memory_bytes)) : "–") +
            number_cell(static_cast<double>(t.package_bytes),
                        t.package_bytes > 0 ? human_bytes(static_cast<double>(t.package_bytes)) : "–") +
            text_cell(method == input.methods.end() || method->second.changes.empty() ? "–" : method->second.changes,
                      "wrap") +
            text_cell(notes.empty() ? "–" : notes, "wrap") + "</tr>";
  }
  if (!more.empty()) {
    out +=
        R"(<details data-print=""><summary>Settings, memory and what was changed, per candidate</summary><div class="body">)" +
        open_table("More about each candidate",
                   {"Candidate", "Settings chosen", "#CPU time of training", "#Memory to answer",
                    "#Package with base model", "What a person can read of the change", "Remarks"},
                   false, true) +
        more + std::string(kCloseTable) + "</div></details>";
  }
  return out + std::string(kCloseSection);
}

std::string section_charts(const ReportInput& input) {
  const std::string wide = quality_chart(input, CostAxis::kCostPerThousand, 1040, 430);
  if (wide.empty()) return "";
  std::string out = open_section("cost", "Quality against cost",
                                 "Up and to the left is better. Vertical lines are 95 % intervals: candidates whose "
                                 "lines overlap widely may do equally well. Candidates of nearly the same cost stand "
                                 "side by side.");
  out +=
      R"(<div class="legend"><span><svg width="14" height="14" aria-hidden="true"><circle class="swatch s-frozen" cx="7" cy="7" r="5"/></svg>model as it is</span>)"
      R"(<span><svg width="14" height="14" aria-hidden="true"><rect class="swatch s-trained" x="2" y="2" width="10" height="10"/></svg>trained network</span>)"
      R"(<span><svg width="14" height="14" aria-hidden="true"><path class="swatch s-none" d="M7 1L13 12L1 12Z"/></svg>no language model</span>)"
      R"(<span><svg width="18" height="18" aria-hidden="true"><circle class="ring" cx="9" cy="9" r="7"/></svg>recommended</span></div>)";
  const auto both = [&](CostAxis axis, const std::string& big, const std::string& caption) {
    return fmt::format(
        R"(<figure><div class="wide-only">{}</div><div class="narrow-only">{}</div><figcaption>{}</figcaption></figure>)",
        big, quality_chart(input, axis, 370, 400), escape_html(caption));
  };
  const std::string lower = wide.find("axis-dashed") == std::string::npos
                                ? ""
                                : " Candidates far below the others stand on the lower edge, with their score.";
  out += both(CostAxis::kCostPerThousand, wide,
              fmt::format("What a thousand single requests cost on this machine at {} a machine hour; proportional to "
                          "the median latency.{}",
                          format_significant(input.options.price_per_hour, 2), lower));
  out += both(CostAxis::kTrainSeconds, quality_chart(input, CostAxis::kTrainSeconds, 1040, 400),
              "Time to fit on this machine, with the search for settings; work shared between candidates is counted as "
              "if each had done it alone." +
                  lower);
  return out + std::string(kCloseSection);
}

}  // namespace tailor
