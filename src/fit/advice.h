#pragma once
/// Advice before anything is spent: the route that the answers and the data suggest, a base model, and what each
/// candidate would take. The questions are those on which published guides let the decision turn; every answer carries
/// its reason.

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "core/json.h"
#include "fit/candidates.h"
#include "fit/options.h"
#include "fit/prepared_data.h"

namespace tailor {

enum class Answer { kUnknown, kYes, kNo };

struct AdviceQuestion {
  std::string_view key;   // "similar_data"
  std::string_view text;  // "Is the model already trained on data like yours?"
  std::string_view why;   // what the answer decides
};
const std::vector<AdviceQuestion>& advice_questions();

/// "tone=yes" -> {"tone", "yes"}; an unknown question or answer is an error that names those there are.
Result<std::pair<std::string, std::string>> parse_answer(std::string_view text);

enum class Route { kFineTune, kPromptOrRetrieve, kMeasure };

struct Advice {
  Route route = Route::kMeasure;
  std::string headline;              // one sentence
  std::vector<std::string> reasons;  // why, answer by answer
  std::vector<std::string> facts;    // measured on the data, beside the answers
  std::string base_model;            // suggested id
  std::vector<std::string> base_model_reasons;
  std::vector<std::string> unanswered;  // keys
};

/// Pure: answers, data and options in, advice out.
Advice make_advice(const std::map<std::string, std::string>& answers, const PreparedData& data,
                   const FitOptions& options);

Json to_json(const Advice& advice);
/// For a terminal, at most 100 columns.
std::string advice_text(const Advice& advice);

/// How the advice compares with what was measured, in a sentence, for the report.
std::string advice_against_measured(const Advice& advice, std::string_view recommended_method, double recommended_score,
                                    double best_prompting_score);

}  // namespace tailor
