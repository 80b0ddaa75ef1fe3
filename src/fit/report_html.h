#pragma once
/// report.html: one file that holds everything, opens offline and loads nothing. It reads without its script, in light,
/// dark and print, and is well-formed as XML. Every text and label is escaped; in addition a content security policy in
/// the file lets no other script than our own run, and nothing be fetched.

#include <string>

#include "fit/report_input.h"

namespace tailor {

/// Bytes of the file. About 0.7 MB for 12 candidates on 3,080 test rows; rows answered wrongly are limited (see
/// report_sections.h). Never fails: what is missing in the input is left out.
std::string report_html(const ReportInput& input);

}  // namespace tailor
