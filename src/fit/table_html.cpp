#include <fmt/format.h>

#include "fit/report_charts.h"
#include "fit/report_svg.h"
#include "fit/table.h"
#include "text/unicode.h"

namespace tailor {
namespace {

std::string notes_of(const ComparisonTable::Row& row) {
  std::string out;
  for (const int n : row.notes) out += fmt::format("{}{}", out.empty() ? "" : ",", n);
  return out.empty() ? out : "<sup>" + out + "</sup>";
}

/// The base model stands below the method: the table is wide enough without a column for it.
std::string name_cell(const ComparisonTable::Row& row) {
  std::string out = R"(<th scope="row"><span class="method">)" + escape_html(row.method) + "</span>" + notes_of(row);
  if (row.recommended) out += R"( <span class="badge">recommended</span>)";
  if (!row.base_model.empty()) out += R"(<span class="model">)" + escape_html(row.base_model) + "</span>";
  if (!row.title.empty()) out += R"(<span class="sub">)" + escape_html(row.title) + "</span>";
  return out + "</th>";
}

std::string verdict_chip(const std::string& text) {
  const std::string verdict = text.substr(0, text.find(' '));
  const std::string rest = text.size() > verdict.size()
                               ? R"( <span class="range">)" +
                                     escape_html(text.substr(verdict.size() + 2, text.size() - verdict.size() - 3)) +
                                     "</span>"
                               : "";
  if (verdict != "best" && verdict != "tie" && verdict != "worse") return escape_html(text);
  return fmt::format(R"(<span class="chip {}">{}</span>{})", verdict, verdict, rest);
}

}  // namespace

std::string html_table(const ComparisonTable& table) {
  std::vector<Interval> qualities;
  for (const auto& row : table.rows) {
    if (!row.cells.empty() && row.quality.high > 0) qualities.push_back(row.quality);
  }
  const QualityRange range = quality_range(qualities);
  std::string out =
      R"(<div class="scroll" role="region" aria-label="Comparison of candidates" tabindex="0"><table class="compare sortable">)"
      R"(<caption class="hidden">Candidates, their scores on the test part and what they cost</caption><thead><tr>)";
  for (const auto& column : table.columns) {
    if (column.key == "base_model") continue;
    out += fmt::format(R"(<th scope="col"{}>{}</th>)", column.numeric ? R"( class="num")" : "",
                       escape_html(column.header));
  }
  out += "</tr></thead><tbody>";
  bool bottom = false;
  for (const auto& row : table.rows) {
    if (row.cells.empty()) {
      if (!bottom) out += R"(</tbody><tbody class="left-out">)";
      bottom = true;
      out += fmt::format(R"(<tr>{}<td class="reason" colspan="{}"><span class="chip {}">{}</span> {}</td></tr>)",
                         name_cell(row), table.columns.size() - 2, to_string(row.status), to_string(row.status),
                         escape_html(row.reason));
      continue;
    }
    out += row.recommended ? R"(<tr class="recommended">)" : "<tr>";
    for (std::size_t c = 0; c < row.cells.size(); ++c) {
      const auto& column = table.columns[c];
      const auto& cell = row.cells[c];
      if (column.key == "base_model") continue;
      if (c == 0) {
        out += name_cell(row);
      } else if (column.key == "vs_best") {
        out += fmt::format(R"(<td data-v="{:.9g}">{}</td>)", cell.sort, verdict_chip(cell.text));
      } else if (column.numeric) {
        std::string text = escape_html(cell.text);
        if (const auto at = text.find(" ["); at != std::string::npos)
          text = text.substr(0, at) + R"( <span class="range">)" + text.substr(at + 1) + "</span>";
        const bool drawn = column.key == "accuracy" && row.quality.high > 0;
        out += fmt::format(R"(<td class="num" data-v="{:.9g}">{}{}</td>)", cell.sort, text,
                           drawn ? interval_chart(row.quality, range.low, range.high, row.recommended) : "");
      } else {
        out += "<td>" + escape_html(cell.text) + "</td>";
      }
    }
    out += "</tr>";
  }
  out += "</tbody></table></div>";
  out += R"(<div class="footnotes">)";
  for (std::size_t i = 0; i < table.footnotes.size(); ++i)
    out += fmt::format("<p><sup>{}</sup> {}</p>", i + 1, escape_html(table.footnotes[i]));
  return out + "<p>" + escape_html(table.legend) + "</p></div>\n";
}

}  // namespace tailor
