#pragma once
/// report.md: the answer, the table and the figures of report.html that read well as text, for a wiki or a pull
/// request.

#include <string>

#include "fit/report_input.h"

namespace tailor {

std::string report_markdown(const ReportInput& input);

}  // namespace tailor
