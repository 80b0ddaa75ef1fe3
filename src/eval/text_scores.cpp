#include "eval/text_scores.h"

#include <algorithm>
#include <vector>

namespace tailor {
namespace {

std::vector<std::string> words(std::string_view text) {
  std::vector<std::string> out;
  bool inside = false;
  for (const char c : text) {
    const char lower = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
    const bool word = (lower >= 'a' && lower <= 'z') || (lower >= '0' && lower <= '9');
    if (word && !inside) out.emplace_back();
    if (word) out.back() += lower;
    inside = word;
  }
  return out;
}

std::string_view trimmed(std::string_view text) {
  constexpr std::string_view kBlanks = " \t\r\n";
  const std::size_t first = text.find_first_not_of(kBlanks);
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(kBlanks) - first + 1);
}

std::size_t longest_common_subsequence(const std::vector<std::string>& a, const std::vector<std::string>& b) {
  std::vector<std::size_t> row(b.size() + 1, 0);
  for (const std::string& word : a) {
    std::size_t diagonal = 0;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t up = row[j];
      row[j] = word == b[j - 1] ? diagonal + 1 : std::max(row[j], row[j - 1]);
      diagonal = up;
    }
  }
  return row[b.size()];
}

bool is_json(std::string_view text) {
  const std::string_view t = trimmed(text);
  return !t.empty() && (t.front() == '{' || t.front() == '[') && Json::accept(t);
}

}  // namespace

double rouge_l(std::string_view answer, std::string_view reference) {
  const auto a = words(answer), b = words(reference);
  if (a.empty() || b.empty()) return 0;
  const auto common = static_cast<double>(longest_common_subsequence(a, b));
  const double precision = common / static_cast<double>(a.size()), recall = common / static_cast<double>(b.size());
  return common == 0 ? 0 : 2 * precision * recall / (precision + recall);
}

bool same_text(std::string_view answer, std::string_view reference) {
  return trimmed(answer) == trimmed(reference);
}

TextScores score_texts(std::span<const GeneratedAnswer> answers, std::span<const std::string> references) {
  TextScores s;
  s.n = std::min(answers.size(), references.size());
  if (s.n == 0) return s;
  const bool all_json = std::all_of(references.begin(), references.end(), is_json);
  if (all_json) s.valid_json = 0;
  double answered = 0, wanted = 0;
  const double share = 1.0 / static_cast<double>(s.n);
  for (std::size_t i = 0; i < s.n; ++i) {
    const GeneratedAnswer& answer = answers[i];
    if (same_text(answer.text, references[i])) s.exact += share;
    s.rouge_l += share * rouge_l(answer.text, references[i]);
    if (answer.ended) s.ended += share;
    if (all_json && is_json(answer.text)) s.valid_json += share;
    answered += static_cast<double>(answer.text.size());
    wanted += static_cast<double>(references[i].size());
  }
  s.length = wanted > 0 ? answered / wanted : 0;
  return s;
}

Json to_json(const TextScores& s) {
  Json json{{"n", s.n}, {"exact", s.exact}, {"rouge_l", s.rouge_l}, {"ended", s.ended}, {"length_ratio", s.length}};
  json["valid_json"] = s.valid_json < 0 ? Json(nullptr) : Json(s.valid_json);
  return json;
}

}  // namespace tailor
