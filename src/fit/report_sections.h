#pragma once
/// The parts of report.html in reading order. Each gives a <section> or "" where there is nothing to show.

#include <string>
#include <string_view>

#include "fit/report_input.h"

namespace tailor {

std::string section_answer(const ReportInput& input);
std::string section_table(const ReportInput& input);
std::string section_charts(const ReportInput& input);
std::string section_classes(const ReportInput& input);
std::string section_confusion(const ReportInput& input);
std::string section_confidence(const ReportInput& input);
std::string section_out_of_scope(const ReportInput& input);
std::string section_errors(const ReportInput& input);
std::string section_search(const ReportInput& input);
std::string section_budget(const ReportInput& input);
std::string section_advice(const ReportInput& input);
std::string section_data(const ReportInput& input);
std::string section_repeat(const ReportInput& input);

// --- shared by the sections
// --------------------------------------------------------------------------------------------

std::string open_section(std::string_view id, std::string_view title, std::string_view intro = {});  // escapes
inline constexpr std::string_view kCloseSection = "</section>\n";
std::string paragraph(std::string_view text, std::string_view css_class = {});
std::string bullet_list(const std::vector<std::string>& items);
std::string fact_list(const std::vector<std::pair<std::string, std::string>>& facts);
std::string meter(double share, std::string_view css_class = {});
/// Opens a scrolling frame and a table. `headings`: a name in front of which '#' means numeric.
std::string open_table(std::string_view label, const std::vector<std::string_view>& headings, bool tall, bool sortable,
                       std::string_view id = {});
inline constexpr std::string_view kCloseTable = "</tbody></table></div>";
std::string number_cell(double sort, std::string_view text, std::string_view extra_html = {});
std::string text_cell(std::string_view text, std::string_view css_class = {});
std::string label_cell(std::string_view label);  // may break after "_", "-", "/" and "."
std::string label_html(std::string_view label);
std::string figure(std::string_view svg_html, std::string_view caption);

/// Texts longer than this many characters are cut in the report.
inline constexpr std::size_t kReportTextLength = 300;
/// Rows with wrong answers shown for one method, and what all of them may add to the file.
inline constexpr std::size_t kWrongRowsPerMethod = 200;
inline constexpr std::size_t kWrongRowsBytes = std::size_t{1700} * 1000;

}  // namespace tailor
