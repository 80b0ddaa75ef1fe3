#include "fit/report_html.h"

#include <array>
#include <filesystem>

#include "fit/budget.h"
#include "fit/report_format.h"
#include "fit/report_page.h"
#include "fit/report_sections.h"

namespace tailor {
namespace {

struct ReportPart {
  std::string_view id, name;
  std::string (*make)(const ReportInput&);
};

constexpr std::array<ReportPart, 13> kParts = {{
    {"answer", "Answer", section_answer},
    {"table", "Candidates", section_table},
    {"cost", "Cost", section_charts},
    {"classes", "Classes", section_classes},
    {"confusion", "Confusions", section_confusion},
    {"confidence", "Confidence", section_confidence},
    {"scope", "Out of scope", section_out_of_scope},
    {"errors", "Wrong rows", section_errors},
    {"search", "Settings", section_search},
    {"budget", "Budget", section_budget},
    {"advice", "Advice", section_advice},
    {"data", "Data", section_data},
    {"repeat", "Repeat", section_repeat},
}};

}  // namespace

std::string report_html(const ReportInput& input) {
  ReportPage page;
  for (const ReportPart& part : kParts) {
    const std::string section = part.make(input);
    if (section.empty()) continue;
    page.parts.emplace_back(part.id, part.name);
    page.body += section;
  }
  page.data = input.options.data.filename().string();
  page.meta = plural(input.label_names.size(), "class", "classes");
  if (const std::size_t rows = test_rows(input); rows > 0) page.meta += ", " + plural(rows, "test row", "test rows");
  const auto elapsed = input.result.find("elapsed_seconds");
  if (elapsed != input.result.end() && elapsed->is_number())
    page.meta += ", run in " + human_seconds(elapsed->get<double>());
  const auto versions = input.result.find("versions");
  page.version =
      versions != input.result.end() && versions->is_object() ? format_scalar(versions->value("tailor", Json(""))) : "";
  return report_page(page);
}

}  // namespace tailor
