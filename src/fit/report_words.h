#pragma once
/// The answer in plain sentences, the same in report.html and report.md. Plain text: each format escapes it.

#include <string>
#include <vector>

#include "fit/report_input.h"
#include "fit/table.h"

namespace tailor {

struct ReportAnswer {
  std::string headline;  // "Use frozen embeddings with logistic regression"
  std::string on;        // "on all-minilm-l6-v2"; empty where there is no base model
  std::vector<std::string> sentences;
  std::vector<std::string> warnings;
  std::string unfinished;  // how many candidates failed or were not tried; empty where none
  std::vector<std::string> would_change;
};
ReportAnswer report_answer(const ReportInput& input);

struct KeyFigure {
  std::string name, value, detail;
};
std::vector<KeyFigure> key_figures(const ReportInput& input);  // of the recommended; empty without one

ComparisonTable comparison_table(const ReportInput& input);

/// What a person needs to repeat the run: names and values, in reading order.
std::vector<std::pair<std::string, std::string>> repeat_facts(const ReportInput& input);
/// Commands that repeat and use the run.
std::vector<std::string> repeat_commands(const ReportInput& input);

/// One decision of the budget as a row: when, which candidate, what was decided, why.
struct BudgetLine {
  double elapsed_seconds = 0;
  std::string candidate, decision, reason;
  double given_seconds = 0;
};
std::vector<BudgetLine> budget_lines(const ReportInput& input);

struct DataFinding {
  std::string severity, message, hint;
};
std::vector<DataFinding> data_findings(const ReportInput& input);
/// Counts and lengths of the data, in reading order.
std::vector<std::pair<std::string, std::string>> data_facts(const ReportInput& input);

}  // namespace tailor
