#pragma once
/// Questions that a piece of a text answers: the rows, the part that each stands in, and which piece is chosen.

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "core/json.h"
#include "core/result.h"
#include "core/token_file.h"
#include "data/question_rows.h"
#include "fit/options.h"
#include "fit/row_split.h"
#include "model/word_tokens.h"

namespace tailor {

inline constexpr const char* kTaskSpans = "span-extraction";                               // of TuneOptions::task
inline constexpr std::size_t kSpanTokens = 384, kQuestionTokens = 64, kSpanOverlap = 128;  // of a window
inline constexpr std::size_t kLongestAnswer = 30;                                          // words

struct PreparedQuestions : SplitData {
  std::vector<QuestionRow> rows;
  bool no_answer = false;  // the text of some training row has none
};

/// Reads the files of `options` (data/question_rows.h; text_columns name the keys of question and text where they are
/// not the usual ones) and splits what is not given as a part; equal and nearly equal texts stand in one part. Errors:
/// those of reading, too few rows.
Result<PreparedQuestions> prepare_questions(const TuneOptions& options);

/// A question's windows over its text; `limit`: tokens of one, at most.
std::vector<QuestionWindow> question_windows(const QuestionRow& row, const Tokenizer& tokenizer, std::size_t limit);

/// Rows of the token file are windows, with the question's number as their row id. The span of a window is the answer
/// in whole words where it holds all of it, else its first token.
TokenFile tokenize_questions(const PreparedQuestions& data, const Tokenizer& tokenizer, std::size_t limit);

struct SpanAnswer {
  std::string text;                  // empty: the text has no answer
  std::uint32_t begin = 0, end = 0;  // bytes of the context
  float p = 0;                       // among all pieces that could be the answer
};
/// The piece with the highest sum of the scores of its first and last token, of whole words, at most kLongestAnswer
/// long;
/// "" where `no_answer` and the first token of the windows scores higher. `scores`: of each window [tokens, 2].
SpanAnswer choose_span(const QuestionRow& row, std::span<const QuestionWindow> windows,
                       std::span<const std::vector<float>> scores, bool no_answer);

/// {"question", "answer", "start", "end", "p"}: start and end count characters (code points) of the text.
Json span_answer_json(const QuestionRow& row, const SpanAnswer& answer);

}  // namespace tailor
