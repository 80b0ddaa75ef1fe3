#include "fit/advice.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "fit/budget.h"

namespace tailor {
namespace {

constexpr std::size_t kLittleData = 10;  // rows a label, median; below, tuning has little to hold on to
constexpr std::size_t kGoodData = 50;

Answer answer_of(const std::map<std::string, std::string>& answers, std::string_view key) {
  const auto it = answers.find(std::string(key));
  if (it == answers.end()) return Answer::kUnknown;
  return it->second == "yes" ? Answer::kYes : it->second == "no" ? Answer::kNo : Answer::kUnknown;
}

std::string wrap(std::string_view text, std::size_t indent, std::size_t width) {
  std::string out(indent, ' ');
  std::size_t column = indent;
  std::size_t at = 0;
  while (at < text.size()) {
    const std::size_t end = std::min(text.find(' ', at), text.size());
    const std::size_t length = end - at;
    if (column > indent && column + 1 + length > width) {
      out += '\n';
      out.append(indent, ' ');
      column = indent;
    } else if (column > indent) {
      out += ' ';
      ++column;
    }
    out.append(text.substr(at, length));
    column += length;
    at = end + 1;
  }
  return out + '\n';
}

}  // namespace

const std::vector<AdviceQuestion>& advice_questions() {
  static const std::vector<AdviceQuestion> kQuestions{
      {"similar_data", "Is the model already trained on data like yours?", "If it is, prompting may be enough."},
      {"private_knowledge", "Is your knowledge not publicly available?",
       "A model cannot know it from its training; it must be shown it, by retrieval or by tuning."},
      {"answers_insufficient", "Are the answers of existing models wrong or insufficient?",
       "Where they are good enough, nothing needs to be tuned."},
      {"prompting_fails", "Can they not be adapted by prompting in their current state?",
       "Prompting is cheaper to change than weights, so it goes first where it works."},
      {"little_data", "Is there too little domain data to train on?",
       "Tuning needs examples; prompting and retrieval work with few."},
      {"data_changes", "Does the data change often?",
       "A tuned model is a picture of one day; an index is kept up to date by adding a row."},
      {"dynamic_context", "Is the application dynamic and context-sensitive?",
       "What changes with each request belongs in the prompt."},
      {"tone", "Does a certain tone or style matter?",
       "Style is learnt well from examples, and hard to describe in a prompt."},
      {"jargon", "Are there words or abbreviations that outsiders would not understand?",
       "Jargon is a reason for tuning: the base model reads it as noise."},
      {"data_must_stay", "Must the data not leave the house?",
       "Everything here runs on this machine; hosted models are ruled out."},
      {"several_languages", "Are the texts in several languages or not in English?",
       "The default models are English; a multilingual base model would be needed."},
      {"low_latency", "Must an answer come within a few milliseconds, or on small hardware?",
       "Small encoders answer in milliseconds, prompted decoders in tenths of a second."},
      {"many_requests", "Are there many requests (over 100,000 a day)?",
       "Then the cost of an answer counts more than the cost of tuning."},
  };
  return kQuestions;
}

Result<std::pair<std::string, std::string>> parse_answer(std::string_view text) {
  const auto equals = text.find('=');
  const std::string key(text.substr(0, equals));
  const std::string value(equals == std::string_view::npos ? std::string_view() : text.substr(equals + 1));
  const auto& questions = advice_questions();
  const bool known =
      std::any_of(questions.begin(), questions.end(), [&](const AdviceQuestion& q) { return q.key == key; });
  if (known && (value == "yes" || value == "no" || value == "unknown")) return std::pair(key, value);
  std::vector<std::string_view> keys;
  for (const auto& q : questions) keys.push_back(q.key);
  return Error{ErrorCode::kInvalidArgument, fmt::format("--answer {} is not QUESTION=yes|no|unknown", text),
               fmt::format("the questions: {}", fmt::join(keys, ", "))};
}

Advice make_advice(const std::map<std::string, std::string>& given, const PreparedData& data,
                   const FitOptions& options) {
  Advice a;
  const auto is = [&](std::string_view key, Answer answer) { return answer_of(given, key) == answer; };
  for (const auto& q : advice_questions()) {
    if (is(q.key, Answer::kUnknown)) a.unanswered.emplace_back(q.key);
  }
  // Measured facts.
  std::vector<std::size_t> rows(data.label_names().size());
  const RowSet fitted = data.train_and_validation();
  for (const int label : data.labels_of(fitted)) ++rows[static_cast<std::size_t>(label)];
  std::vector<std::size_t> sorted = rows;
  std::sort(sorted.begin(), sorted.end());
  const std::size_t median = sorted[sorted.size() / 2];
  a.facts.push_back(fmt::format("{} rows to learn from and {} to test on, {} labels; {} to {} rows a label, median {}.",
                                fitted.size(), data.test().size(), rows.size(), sorted.front(), sorted.back(), median));
  if (data.kfold())
    a.facts.push_back(
        fmt::format("Some label has under 20 rows: choices are made by {}-fold cross-validation, then everything is "
                    "fitted on all training rows.",
                    data.split.folds));
  std::size_t not_ascii = 0;
  for (const auto id : fitted.ids) {
    const auto& text = data.dataset.texts[id];
    not_ascii +=
        std::any_of(text.begin(), text.end(), [](char c) { return static_cast<unsigned char>(c) >= 0x80; }) ? 1 : 0;
  }
  const double share = static_cast<double>(not_ascii) / static_cast<double>(std::max<std::size_t>(1, fitted.size()));
  a.facts.push_back(
      fmt::format("{:.0f} % of the texts hold letters outside ASCII{}.", 100 * share,
                  share > 0.3 ? "; if they are not English, name a multilingual model with --model" : ""));

  // The published rule: all four yes: fine-tune; any of three yes: prompt or retrieve.
  const bool measured_little = median < kLittleData;
  bool all_for_tuning = is("similar_data", Answer::kNo);
  for (const auto* key : {"private_knowledge", "answers_insufficient", "prompting_fails"})
    all_for_tuning = all_for_tuning && is(key, Answer::kYes);
  std::vector<std::string> against;
  if (is("little_data", Answer::kYes)) against.emplace_back("you say there is too little domain data");
  if (is("data_changes", Answer::kYes))
    against.emplace_back("your data changes often, and a tuned model would have to be made again each time");
  if (is("dynamic_context", Answer::kYes)) against.emplace_back("the application is dynamic and context-sensitive");
  if (!against.empty()) {
    a.route = Route::kPromptOrRetrieve;
    a.headline = "Prefer prompting or retrieval; let the measurement say whether tuning is worth its upkeep.";
    a.reasons = against;
    if (is("little_data", Answer::kYes) && median >= kGoodData)
      a.reasons.push_back(
          fmt::format("but the data has {} rows a label, which is enough for tuning to be measured", median));
  } else if (all_for_tuning) {
    a.route = Route::kFineTune;
    a.headline = "Fine-tune: the answers rule the other ways out.";
    a.reasons = {"the model has not seen data like yours", "your knowledge is not public",
                 "the answers of existing models are not good enough", "and prompting does not mend them"};
  } else {
    a.route = Route::kMeasure;
    a.headline = median >= kGoodData ? "The answers do not decide it; with this many examples tuning and frozen "
                                       "features are likely to win. Measure."
                                     : "The answers do not decide it. Measure.";
    if (is("similar_data", Answer::kYes))
      a.reasons.emplace_back("the model has been trained on data like yours, so prompting may do");
    if (is("private_knowledge", Answer::kYes))
      a.reasons.emplace_back("your knowledge is not public: the model must be shown it");
    if (is("answers_insufficient", Answer::kYes)) a.reasons.emplace_back("existing models do not answer well enough");
  }
  if (measured_little)
    a.reasons.push_back(
        fmt::format("the data has only {} rows a label (median): prompting with retrieved examples and frozen features "
                    "suffer least from that",
                    median));
  else if (median >= kGoodData)
    a.reasons.push_back(fmt::format("the data has {} rows a label (median), which is enough to tune on", median));
  if (is("tone", Answer::kYes)) a.reasons.emplace_back("tone and style are learnt well by tuning");
  if (is("jargon", Answer::kYes)) a.reasons.emplace_back("jargon is a reason for tuning");
  if (is("data_must_stay", Answer::kYes))
    a.reasons.emplace_back(
        "the data must not leave the house: every candidate here runs on this machine and opens no connection");
  const bool fast = is("low_latency", Answer::kYes) || is("many_requests", Answer::kYes) ||
                    options.max_latency_ms > 0 || options.requests_per_day > 100000;
  if (fast)
    a.reasons.emplace_back("speed counts: encoders answer in milliseconds, prompted decoders in tenths of a second");

  a.base_model = options.models.empty() ? "all-minilm-l6-v2" : options.models.front();
  if (options.models.empty()) {
    a.base_model_reasons = {"task: sorting texts into labels is what encoders are made for",
                            "size: 22 M parameters, small enough for any machine",
                            "languages: English; for others name a multilingual model with --model",
                            "quality: the candidates are measured, so a wrong suggestion costs nothing but time",
                            "licence: Apache-2.0, commercial use allowed",
                            "hardware: no GPU needed"};
  } else {
    a.base_model_reasons = {"you named it"};
  }
  return a;
}

Json to_json(const Advice& a) {
  static constexpr const char* kRoutes[] = {"fine_tune", "prompt_or_retrieve", "measure"};
  return Json{{"route", kRoutes[static_cast<int>(a.route)]},
              {"headline", a.headline},
              {"reasons", a.reasons},
              {"facts", a.facts},
              {"base_model", a.base_model},
              {"base_model_reasons", a.base_model_reasons},
              {"unanswered", a.unanswered}};
}

std::string advice_text(const Advice& a) {
  std::string text = "Advice before anything is spent\n" + wrap(a.headline, 2, 100);
  for (const auto& reason : a.reasons) text += wrap("- " + reason, 4, 100);
  text += "What the data says\n";
  for (const auto& fact : a.facts) text += wrap(fact, 2, 100);
  text += fmt::format("Suggested base model: {}\n", a.base_model);
  for (const auto& reason : a.base_model_reasons) text += wrap("- " + reason, 4, 100);
  if (!a.unanswered.empty()) {
    text += wrap(fmt::format("{} of {} questions are unanswered; `tailor advise` asks them, --answer {}=yes gives one.",
                             a.unanswered.size(), advice_questions().size(), a.unanswered.front()),
                 2, 100);
  }
  return text;
}

std::string advice_against_measured(const Advice& a, std::string_view recommended, double recommended_score,
                                    double best_prompting_score) {
  const bool prompting = recommended.find("shot") != std::string_view::npos;
  const std::string gap = best_prompting_score >= 0
                              ? fmt::format(" It scores {:.1f} %, the best prompting candidate {:.1f} %.",
                                            100 * recommended_score, 100 * best_prompting_score)
                              : std::string(" No prompting candidate was measured.");
  switch (a.route) {
    case Route::kPromptOrRetrieve:
      return (prompting ? "The advice was prompting or retrieval, and the measurement agrees."
                        : fmt::format("The advice was prompting or retrieval; measured, {} is better.", recommended)) +
             gap;
    case Route::kFineTune:
      return (prompting ? "The advice was to fine-tune; measured, prompting is good enough."
                        : fmt::format("The advice was to fine-tune; measured, {} is the choice.", recommended)) +
             gap;
    case Route::kMeasure:
      return fmt::format("The advice was to measure; measured, {} is the choice.", recommended) + gap;
  }
  return "";
}

}  // namespace tailor
