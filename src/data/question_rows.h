#pragma once
/// Questions that a piece of a text answers, in SQuAD's shapes:
///   {"question": "…", "context": "…", "answers": {"text": ["…"], "answer_start": [17]}}      a JSON object a line, or
///   a
///                                                                                             JSON array of them
///   the same with "answers": [{"text": "…", "answer_start": 17}], or "answer": "…" (also with "answer_start")
///   SQuAD's own files: {"data": [{"paragraphs": [{"context": "…", "qas": [{"question": "…", "answers": […]}]}]}]}
/// answer_start counts characters (code points). An empty list of answers, or "is_impossible": the text has none.

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "core/result.h"

namespace tailor {

struct QuestionRow {
  std::string question, context;
  bool known = false;                // the row says what answers it, or that nothing does
  std::vector<std::string> answers;  // all that are right; empty where known: the text has none
  std::uint32_t begin = 0, end = 0;  // bytes of the context: the first answer; equal: there is none
  std::uint32_t line = 0;            // 1-based line of the file, or place among its questions
};

struct QuestionRows {
  std::vector<QuestionRow> rows;
  std::size_t moved = 0;   // answers that stand elsewhere than answer_start says; the nearest place counts
  std::size_t absent = 0;  // rows whose answer is not in their context; left out
};

struct QuestionReadOptions {
  std::string question_key = "question", context_key = "context";
  std::string encoding;       // as in CsvOptions
  bool needs_answers = true;  // false: rows without answers are to be answered
};

/// Errors name the file and line: broken JSON, keys that are missing or of another type, no row at all.
Result<QuestionRows> read_question_rows(const std::filesystem::path& file, const QuestionReadOptions& options);

}  // namespace tailor
