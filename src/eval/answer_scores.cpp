#include "eval/answer_scores.h"

#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <map>

#include "core/result.h"
#include "eval/resampling.h"
#include "text/plain_words.h"

namespace tailor {
namespace {

bool is_ascii_punctuation(char c) {
  return (c >= '!' && c <= '/') || (c >= ':' && c <= '@') || (c >= '[' && c <= '`') || (c >= '{' && c <= '~');
}

bool is_article(std::string_view word) {
  return word == "a" || word == "an" || word == "the";
}

double best_of(std::string_view answer, const References& references,
               const std::function<double(std::string_view, std::string_view)>& score) {
  if (references.empty()) return score(answer, "");
  double best = 0;
  for (const std::string& reference : references) best = std::max(best, score(answer, reference));
  return best;
}

}  // namespace

std::vector<std::string> answer_words(std::string_view utf8) {
  std::string text = lower_case(utf8);
  std::erase_if(text, is_ascii_punctuation);
  std::vector<std::string> words;
  for (const std::string& blank : split_blanks(text)) {
    if (!is_article(blank)) words.push_back(blank);
  }
  return words;
}

bool exact_match(std::string_view answer, std::string_view reference) {
  return answer_words(answer) == answer_words(reference);
}

double answer_f1(std::string_view answer, std::string_view reference) {
  const auto said = answer_words(answer), wanted = answer_words(reference);
  if (said.empty() || wanted.empty()) return said.empty() && wanted.empty() ? 1 : 0;
  std::map<std::string, int> left;
  for (const std::string& word : wanted) ++left[word];
  double same = 0;
  for (const std::string& word : said) {
    const auto found = left.find(word);
    if (found == left.end() || found->second == 0) continue;
    --found->second;
    ++same;
  }
  return 2 * same / static_cast<double>(said.size() + wanted.size());
}

Json to_json(const AnswerScores& s) {
  return Json{{"exact_match", to_json(s.exact_match)}, {"f1", to_json(s.f1)}};
}

AnswerScores bootstrap_answers(std::span<const std::string> answers, std::span<const References> references,
                               const BootstrapOptions& options) {
  if (answers.size() != references.size()) {
    throw Exception({ErrorCode::kInvalidArgument,
                     fmt::format("{} answers are held against {}", answers.size(), references.size()), ""});
  }
  std::vector<double> exact, f1;
  for (std::size_t i = 0; i < answers.size(); ++i) {
    exact.push_back(best_of(answers[i], references[i],
                            [](std::string_view a, std::string_view b) { return exact_match(a, b) ? 1.0 : 0.0; }));
    f1.push_back(best_of(answers[i], references[i], answer_f1));
  }
  const auto mean = [](const std::vector<double>& values, const std::vector<std::size_t>& rows) {
    double sum = 0;
    for (const std::size_t r : rows) sum += values[r];
    return rows.empty() ? 0 : sum / static_cast<double>(rows.size());
  };
  std::vector<std::size_t> all(answers.size());
  for (std::size_t i = 0; i < all.size(); ++i) all[i] = i;
  std::vector<double> exact_draws, f1_draws;
  resample(answers.size(), options, [&](const std::vector<std::size_t>& rows) {
    exact_draws.push_back(mean(exact, rows));
    f1_draws.push_back(mean(f1, rows));
  });
  return {percentiles(mean(exact, all), std::move(exact_draws), options.confidence),
          percentiles(mean(f1, all), std::move(f1_draws), options.confidence)};
}

}  // namespace tailor
