#include "recipes/tune_questions.h"

#include <algorithm>
#include <cstring>

#include "core/safetensors.h"
#include "eval/answer_scores.h"
#include "fit/question_data.h"
#include "fit/question_model.h"
#include "fit/serving.h"

namespace tailor {
namespace {

class QuestionTask final : public EncoderTask {
 public:
  using EncoderTask::EncoderTask;

 private:
  Status read() override;
  const SplitData& data() const override { return data_; }
  TokenFile tokenize(const Tokenizer& tokenizer, const EncoderReading& reading) const override {
    return tokenize_questions(data_, tokenizer, std::min(kSpanTokens, reading.positions));
  }
  Status describe(PackageManifest& manifest) override;
  Status read_answers() override;
  Json prediction(std::size_t test_row) const override;
  Result<Answered> ask(const PackageManifest& manifest) override;
  void report(Json& result) const override;

  Json scores(const std::vector<SpanAnswer>& answers) const;

  PreparedQuestions data_;
  std::vector<QuestionRow> test_;
  std::vector<SpanAnswer> trained_;  // of the test rows
};

Status QuestionTask::read() {
  TAILOR_TRY(data_, prepare_questions(options()));
  test_.clear();
  for (const auto r : data_.rows_of(TokenPart::kTest)) test_.push_back(data_.rows[r]);
  return {};
}

/// Its texts are read as pairs, also when it is served.
Status QuestionTask::describe(PackageManifest& manifest) {
  if (manifest.text_columns.size() != 2) manifest.text_columns = {"question", "context"};
  manifest.text_template = "{" + manifest.text_columns[0] + "}" + kPairSeparator + "{" + manifest.text_columns[1] + "}";
  manifest.serving = kServeSpan;
  manifest.target.kind = PackageTarget::Kind::kSpan;
  manifest.target.no_answer = data_.no_answer;
  manifest.labels = {"first", "last"};
  return {};
}

Json QuestionTask::scores(const std::vector<SpanAnswer>& answers) const {
  std::vector<std::string> said;
  std::vector<References> references;
  for (const SpanAnswer& answer : answers) said.push_back(answer.text);
  for (const QuestionRow& row : test_) references.push_back(row.answers);
  return to_json(bootstrap_answers(said, references, {.seed = options().seed}));
}

/// The scores of the rows' windows, made answers as the package makes them.
Status QuestionTask::read_answers() {
  TAILOR_TRY(const SafetensorsFile stored, SafetensorsFile::open(trained().directory / "test_predictions.safetensors"));
  TAILOR_TRY(const SafeTensor z, stored.get("scores", "F32", 2));
  TAILOR_TRY(const Tokenizer tokenizer, Tokenizer::load(base().gguf));
  TAILOR_TRY(const EncoderReading reading, encoder_reading(base().gguf, ""));
  const std::size_t limit = std::min(kSpanTokens, reading.positions);
  std::size_t next = 0;
  trained_.clear();
  for (const QuestionRow& row : test_) {
    const auto windows = question_windows(row, tokenizer, limit);
    std::vector<std::vector<float>> scores;
    for (const QuestionWindow& window : windows) {
      scores.emplace_back(2 * window.ids.size());
      if (next + scores.back().size() * sizeof(float) > z.bytes.size())
        return Error{ErrorCode::kInternal, "the trainer answered other rows than it was given", ""};
      std::memcpy(scores.back().data(), z.bytes.data() + next, scores.back().size() * sizeof(float));
      next += scores.back().size() * sizeof(float);
    }
    trained_.push_back(choose_span(row, windows, scores, data_.no_answer));
  }
  return {};
}

Json QuestionTask::prediction(std::size_t test_row) const {
  Json line{{"line", test_[test_row].line}};
  line.update(span_answer_json(test_[test_row], trained_[test_row]));
  line["expected"] = test_[test_row].answers;
  return line;
}

Result<EncoderTask::Answered> QuestionTask::ask(const PackageManifest& manifest) {
  TAILOR_TRY(QuestionModel model, QuestionModel::load(package_directory(), manifest, {.threads = threads()}));
  const Stopwatch watch;
  TAILOR_TRY(const std::vector<SpanAnswer> served, model.answer(test_, progress(), cancel()));
  const double seconds = watch.seconds();
  std::size_t same = 0;
  for (std::size_t i = 0; i < test_.size(); ++i)
    same += served[i].begin == trained_[i].begin && served[i].end == trained_[i].end ? 1 : 0;
  return Answered{Json{{"same_answers", same}, {"metrics", scores(served)}}, seconds};
}

void QuestionTask::report(Json& result) const {
  result["no_answer"] = data_.no_answer;
  result["test"] = Json{{"metrics", scores(trained_)}};
}

}  // namespace

bool tunes_questions(const TuneOptions& options) {
  return options.task == kTaskSpans;
}

std::unique_ptr<EncoderTask> question_task(TuneOptions options, RunUi& ui, const CancelToken& cancel) {
  return std::make_unique<QuestionTask>(std::move(options), ui, cancel);
}

}  // namespace tailor
