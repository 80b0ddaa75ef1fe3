#include "fit/report_input.h"

#include <algorithm>
#include <filesystem>

#include "text/unicode.h"

namespace tailor {

std::size_t recommended_trial(const ReportInput& input) {
  for (std::size_t i = 0; i < input.trials.size(); ++i) {
    if (!input.decision.recommended.empty() && input.trials[i].id == input.decision.recommended) return i;
  }
  return kNoTrial;
}

const Predictions& test_of(const ReportInput& input, std::size_t i) {
  static const Predictions kNone;
  return i < input.test.size() ? input.test[i] : kNone;
}

const Predictions& validation_of(const ReportInput& input, std::size_t i) {
  static const Predictions kNone;
  return i < input.validation.size() ? input.validation[i] : kNone;
}

std::size_t test_rows(const ReportInput& input) {
  std::size_t most = 0;
  for (const auto& trial : input.trials) most = std::max(most, trial.n_scored);
  const auto split = input.result.find("split");
  if (split != input.result.end() && split->is_object() && split->contains("test") &&
      (*split)["test"].is_number_integer()) {
    most = std::max(most, (*split)["test"].get<std::size_t>());
  }
  return most;
}

std::string method_title(const ReportInput& input, const TrialRecord& trial) {
  const auto it = input.methods.find(trial.method);
  return it == input.methods.end() || it->second.title.empty() ? trial.method : it->second.title;
}

std::string trial_title(const ReportInput& input, const TrialRecord& trial) {
  const std::string title = method_title(input, trial);
  return trial.base_model.empty() ? title : title + " on " + trial.base_model;
}

std::string short_trial_name(const ReportInput& input, const TrialRecord& trial) {
  const auto same = std::count_if(input.trials.begin(), input.trials.end(),
                                  [&](const TrialRecord& t) { return t.method == trial.method; });
  return same > 1 && !trial.base_model.empty() ? trial.method + " · " + trial.base_model : trial.method;
}

std::string label_name(const ReportInput& input, int label) {
  if (label < 0 || static_cast<std::size_t>(label) >= input.label_names.size()) return "no answer";
  return input.label_names[static_cast<std::size_t>(label)];
}

std::string row_place(const ReportInput& input, std::int64_t row) {
  const auto at = static_cast<std::size_t>(row);
  const std::string line = at < input.lines.size() ? std::to_string(input.lines[at]) : "row " + std::to_string(row);
  if (input.file_names.size() < 2 || at >= input.file_of.size() || input.file_of[at] >= input.file_names.size())
    return line;
  return std::filesystem::path(input.file_names[input.file_of[at]]).filename().string() + ":" + line;
}

int out_of_scope_label(const std::vector<std::string>& label_names, std::string_view named) {
  const auto index_if = [&](const auto& match) {
    const auto it = std::find_if(label_names.begin(), label_names.end(), match);
    return it == label_names.end() ? -1 : static_cast<int>(it - label_names.begin());
  };
  if (!named.empty()) return index_if([&](const std::string& name) { return name == named; });
  for (const std::string_view usual : {"out of scope", "outofscope", "oos", "out of domain", "ood", "none of the above",
                                       "other", "others", "unknown", "none"}) {
    const int found = index_if([&](const std::string& name) { return skeleton(name) == usual; });
    if (found >= 0) return found;
  }
  return -1;
}

}  // namespace tailor
