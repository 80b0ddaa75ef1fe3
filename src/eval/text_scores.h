#pragma once
/// How near a generated answer is to the one that was wanted.

#include <span>
#include <string>
#include <string_view>

#include "core/json.h"

namespace tailor {

/// ROUGE-L F1 (Lin, 2004) as Google's rouge_score computes it without stemming: lower-cased runs of a-z and 0-9 are
/// words, the longest common subsequence counts. 0 where either has no words.
double rouge_l(std::string_view answer, std::string_view reference);

/// Equal but for blanks at both ends.
bool same_text(std::string_view answer, std::string_view reference);

struct GeneratedAnswer {
  std::string text;
  bool ended = false;  // by the model, not by the limit of tokens
};

/// Means over answers with their references.
struct TextScores {
  std::size_t n = 0;
  double exact = 0, rouge_l = 0;
  double ended = 0;        // share
  double valid_json = -1;  // share of answers that are JSON; -1: not all references are
  double length = 0;       // characters of an answer over those of its reference, both summed
};
TextScores score_texts(std::span<const GeneratedAnswer> answers, std::span<const std::string> references);
Json to_json(const TextScores& scores);

}  // namespace tailor
