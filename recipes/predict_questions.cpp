#include "recipes/predict_questions.h"

#include "core/files.h"
#include "core/stopwatch.h"
#include "core/system.h"
#include "fit/serving.h"

namespace tailor {
namespace {

Result<std::vector<QuestionRow>> read_input(const PredictRequest& request, const PackageManifest& manifest) {
  std::vector<QuestionRow> rows;
  if (request.input.empty()) {
    if (request.texts.size() % 2 != 0) {
      return Error{ErrorCode::kInvalidArgument,
                   "this package answers a question from a text, and the last one has none",
                   "tailor predict PACKAGE \"a question\" \"the text that answers it\""};
    }
    for (std::size_t i = 0; i < request.texts.size(); i += 2)
      rows.push_back({.question = request.texts[i], .context = request.texts[i + 1]});
    return rows;
  }
  const auto& columns = request.text_columns.size() == 2 ? request.text_columns : manifest.text_columns;
  QuestionReadOptions reading{.encoding = request.encoding, .needs_answers = false};
  if (columns.size() == 2) {
    reading.question_key = columns[0];
    reading.context_key = columns[1];
  }
  TAILOR_TRY(QuestionRows read, read_question_rows(request.input, reading));
  return std::move(read.rows);
}

}  // namespace

bool answers_questions(const PackageManifest& manifest) {
  return manifest.serving == kServeSpan;
}

Result<QuestionSummary> predict_questions(const PredictRequest& request, PackageManifest manifest,
                                          const ProgressFn& progress, const CancelToken& cancel) {
  const int threads = request.threads > 0 ? request.threads : system_info().cores;
  QuestionSummary out;
  TAILOR_TRY(QuestionModel model, QuestionModel::load(request.package, manifest, {.threads = threads}));
  TAILOR_TRY(out.rows, read_input(request, manifest));
  const Stopwatch watch;
  TAILOR_TRY(out.answers, model.answer(out.rows, progress, cancel));
  out.seconds = watch.seconds();
  std::vector<std::string> said;
  std::vector<References> references;
  for (std::size_t r = 0; r < out.rows.size(); ++r) {
    if (!out.rows[r].known) continue;
    said.push_back(out.answers[r].text);
    references.push_back(out.rows[r].answers);
  }
  out.compared = said.size();
  out.scores = bootstrap_answers(said, references);
  return out;
}

Status write_question_predictions(const std::filesystem::path& file, const QuestionSummary& s) {
  std::string lines;
  for (std::size_t r = 0; r < s.rows.size(); ++r) {
    Json line{{"row", r + 1}};
    line.update(span_answer_json(s.rows[r], s.answers[r]));
    if (s.rows[r].known) line["expected"] = s.rows[r].answers;
    lines += dump_json(line) + "\n";
  }
  return write_file_atomic(file, lines);
}

}  // namespace tailor
