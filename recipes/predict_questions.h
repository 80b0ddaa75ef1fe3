#pragma once
/// Recipe: answer questions with pieces of their texts, by a package, one at a time or a whole file.

#include <filesystem>
#include <vector>

#include "core/cancel.h"
#include "core/progress.h"
#include "core/result.h"
#include "eval/answer_scores.h"
#include "fit/question_model.h"
#include "recipes/predict.h"

namespace tailor {

struct QuestionSummary {
  std::vector<QuestionRow> rows;
  std::vector<SpanAnswer> answers;
  std::size_t compared = 0;  // rows of the input that say what answers them
  AnswerScores scores;       // of those
  double seconds = 0;
};

/// Whether the package is one of this recipe.
bool answers_questions(const PackageManifest& manifest);

/// `manifest`: of read_package(). Texts on the command line come in twos: a question and the text.
Result<QuestionSummary> predict_questions(const PredictRequest& request, PackageManifest manifest,
                                          const ProgressFn& progress, const CancelToken& cancel);

/// A line a row: "row" (from 1), and what span_answer_json() gives; "expected" where the input has it. Atomic.
Status write_question_predictions(const std::filesystem::path& file, const QuestionSummary& summary);

}  // namespace tailor
