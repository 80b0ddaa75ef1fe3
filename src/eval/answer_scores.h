#pragma once
/// Scores of answers that are pieces of a text, as SQuAD's script computes them (Rajpurkar et al., arXiv:1606.05250 and
/// arXiv:1806.03822): in lower case, without ASCII punctuation and articles, blanks alike. Of several right answers the
/// nearest counts. Equal to the script's (tests: 1e-9).

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/json.h"
#include "eval/intervals.h"

namespace tailor {

/// The words of an answer as they are compared.
std::vector<std::string> answer_words(std::string_view utf8);
bool exact_match(std::string_view answer, std::string_view reference);
/// F1 of the words that both have, counted as often as both have them; without words on one side, 1 where both have
/// none.
double answer_f1(std::string_view answer, std::string_view reference);

/// References of one question; empty: the text has no answer, and "" is the right one.
using References = std::vector<std::string>;

struct AnswerScores {
  Interval exact_match, f1;  // shares
};
Json to_json(const AnswerScores& scores);
/// Percentile bootstrap over questions, as bootstrap_scores(). Other lengths throw Exception{kInvalidArgument}.
AnswerScores bootstrap_answers(std::span<const std::string> answers, std::span<const References> references,
                               const BootstrapOptions& options = {});

}  // namespace tailor
