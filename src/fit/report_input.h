#pragma once
/// What the report is made of. `fit` fills it once everything is known; report_html() and report_markdown() only read
/// it.

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/json.h"
#include "fit/decision.h"
#include "fit/options.h"
#include "fit/predictions.h"
#include "fit/trial.h"

namespace tailor {

/// How a method is presented to a person.
struct MethodText {
  enum class Family { kNoModel, kFrozen, kTrained };  // colour and shape in charts
  std::string title;                                  // "Frozen embeddings with logistic regression"
  std::string changes;                                // what a person can read of what was changed
  Family family = Family::kNoModel;
};
/// Of every method in the table of candidates.
std::map<std::string, MethodText> describe_methods();

struct ReportInput {
  FitOptions options;
  std::vector<TrialRecord> trials;
  Decision decision;
  std::vector<Predictions> test;        // parallel to trials; empty where a trial was not scored
  std::vector<Predictions> validation;  // parallel to trials; may be empty. Thresholds are taken from it where present
  std::vector<std::string> label_names;
  std::vector<std::string> texts;             // by row id; empty with --no-texts
  std::vector<std::uint32_t> lines;           // by row id, 1-based line of the file
  std::vector<std::uint8_t> file_of;          // by row id, index into file_names; may be empty with a single file
  std::vector<std::string> file_names;        // as the user gave them
  std::vector<std::string> file_hashes;       // SHA-256 of each
  std::map<std::string, MethodText> methods;  // describe_methods(); a method that is not in it shows its bare name
  Json result = Json::object();  // result.json: data, split, budget_decisions, seed, versions, machine, command, …
  Json advice = Json::object();  // advice.json
  std::string advice_against_measured;  // one sentence; may be empty
  Json package = Json::object();        // the package's manifest.json; may be empty
};

inline constexpr std::size_t kNoTrial = static_cast<std::size_t>(-1);

std::size_t recommended_trial(const ReportInput& input);              // index into trials, or kNoTrial
const Predictions& test_of(const ReportInput& input, std::size_t i);  // an empty one where there is none
const Predictions& validation_of(const ReportInput& input, std::size_t i);
std::size_t test_rows(const ReportInput& input);  // of the whole test part

std::string method_title(const ReportInput& input, const TrialRecord& trial);  // falls back to the method's name
std::string trial_title(const ReportInput& input, const TrialRecord& trial);   // "… on all-minilm-l6-v2"
/// "features", or "features · all-minilm-l6-v2" where the method ran on several base models.
std::string short_trial_name(const ReportInput& input, const TrialRecord& trial);
std::string label_name(const ReportInput& input, int label);        // "no answer" for -1
std::string row_place(const ReportInput& input, std::int64_t row);  // "17", or "test.csv:17" with several files

/// The label that means "none of the others": the one named in the options, else one with a usual name
/// ("out_of_scope", "oos", "other", …); -1 where there is none.
int out_of_scope_label(const std::vector<std::string>& label_names, std::string_view named);

}  // namespace tailor
