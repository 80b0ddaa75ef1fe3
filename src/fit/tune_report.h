#pragma once
/// report.html and report.md of a run of `tailor tune`: the answer in sentences, the curves of the training, what was
/// asked for. Only reads what it is given; what is missing is left out.

#include <string>
#include <vector>

#include "core/json.h"

namespace tailor {

struct TuneReportInput {
  Json result;               // result.json (docs/TUNE.md)
  std::vector<Json> events;  // read_training_log()
  std::string data;          // name of the data file
  std::string command;       // as typed
};

/// One file that loads nothing, in the style of fit's report.
std::string tune_report_html(const TuneReportInput& input);
/// The sentences and figures alone.
std::string tune_report_markdown(const TuneReportInput& input);

/// "The values of step 120 were kept …": the same in both, without markup.
std::vector<std::string> tune_report_sentences(const Json& result);

}  // namespace tailor
