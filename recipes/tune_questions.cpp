#include "recipes/tune_questions.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "core/files.h"
#include "core/safetensors.h"
#include "core/stopwatch.h"
#include "core/system.h"
#include "eval/answer_scores.h"
#include "fit/question_data.h"
#include "fit/question_model.h"
#include "fit/serving.h"
#include "recipes/encoder_task.h"
#include "recipes/run_directory.h"

namespace tailor {
namespace {

namespace fs = std::filesystem;

constexpr const char* kPredictions = "test_predictions.jsonl";

class QuestionRecipe {
 public:
  QuestionRecipe(TuneOptions options, RunUi& ui, const CancelToken& cancel)
      : options_(std::move(options)), ui_(ui), cancel_(cancel) {}

  Status begin();  // model, method, rows
  Status write_start(const std::string& command_line) const;
  Status same_data(const Json& run) const {
    return require_unchanged(data_.files, data_.file_hashes, run.at("file_hashes").get<std::vector<std::string>>());
  }
  Status train();
  Status package();
  Status prove();  // the test part, as trained and as served
  Result<TuneSummary> finish();

 private:
  RunDirectory run_directory() const { return {options_.out}; }
  int threads() const { return options_.threads > 0 ? options_.threads : system_info().cores; }
  ProgressFn progress() const {
    return [this](const Progress& p) { ui_.progress(p, watch_.seconds(), 0); };
  }
  std::vector<QuestionRow> test_rows() const;
  Json scores(const std::vector<SpanAnswer>& answers) const;
  Status read_answers();
  Status write_predictions() const;

  TuneOptions options_;
  RunUi& ui_;
  const CancelToken& cancel_;
  const Stopwatch watch_;
  TunedBy by_;
  PreparedQuestions data_;
  TrainedTask task_;
  std::vector<SpanAnswer> trained_, served_;  // of the test rows
  Json served_json_;
};

Status QuestionRecipe::begin() {
  TAILOR_TRY(by_, choose_for_task(options_));
  ui_.stage("reading the data");
  TAILOR_TRY(data_, prepare_questions(options_));
  for (const std::string& warning : data_.warnings) ui_.warning(warning);
  return {};
}

Status QuestionRecipe::write_start(const std::string& command_line) const {
  TAILOR_CHECK(make_directories(options_.out));
  return write_run_json(run_directory().options(), kTuneRunFormat, kTuneRunVersion, command_line, to_json(options_),
                        data_.files, data_.file_hashes);
}

Status QuestionRecipe::train() {
  TAILOR_TRY(task_, train_task(
                        options_, by_, threads(), !data_.rows_of(TokenPart::kValidation).empty(), /*metric=*/"",
                        [&](const Tokenizer& tokenizer, const EncoderReading& reading) {
                          return tokenize_questions(data_, tokenizer, std::min(kSpanTokens, reading.positions));
                        },
                        ui_, progress(), cancel_));
  return {};
}

Status QuestionRecipe::package() {
  ui_.stage("making the package");
  TuneOptions as_pair = options_;  // so that it is read as a pair, also when it is served
  if (as_pair.text_columns.size() != 2) as_pair.text_columns = {"question", "context"};
  as_pair.text_template = "{" + as_pair.text_columns[0] + "}" + kPairSeparator + "{" + as_pair.text_columns[1] + "}";
  PackageManifest manifest;
  manifest.serving = kServeSpan;
  manifest.target.kind = PackageTarget::Kind::kSpan;
  manifest.target.no_answer = data_.no_answer;
  manifest.labels = {"first", "last"};
  return package_task(as_pair, by_, task_, {data_.files, data_.file_hashes, data_.rows_of(TokenPart::kTrain).size()},
                      std::move(manifest));
}

std::vector<QuestionRow> QuestionRecipe::test_rows() const {
  std::vector<QuestionRow> rows;
  for (const auto r : data_.rows_of(TokenPart::kTest)) rows.push_back(data_.rows[r]);
  return rows;
}

Json QuestionRecipe::scores(const std::vector<SpanAnswer>& answers) const {
  std::vector<std::string> said;
  std::vector<References> references;
  for (const SpanAnswer& answer : answers) said.push_back(answer.text);
  for (const QuestionRow& row : test_rows()) references.push_back(row.answers);
  return to_json(bootstrap_answers(said, references, {.seed = options_.seed}));
}

/// The trainer's scores of the test rows' windows, made answers as the package makes them.
Status QuestionRecipe::read_answers() {
  TAILOR_TRY(const SafetensorsFile stored, SafetensorsFile::open(task_.run.directory / "test_predictions.safetensors"));
  TAILOR_TRY(const SafeTensor z, stored.get("scores", "F32", 2));
  TAILOR_TRY(const Tokenizer tokenizer, Tokenizer::load(task_.base.gguf));
  TAILOR_TRY(const EncoderReading reading, encoder_reading(task_.base.gguf, ""));
  const std::size_t limit = std::min(kSpanTokens, reading.positions);
  std::size_t next = 0;
  trained_.clear();
  for (const QuestionRow& row : test_rows()) {
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

/// A line a test row, as the trainer computed it.
Status QuestionRecipe::write_predictions() const {
  const auto rows = test_rows();
  std::string lines;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    Json line{{"line", rows[i].line}};
    line.update(span_answer_json(rows[i], trained_[i]));
    line["expected"] = rows[i].answers;
    lines += dump_json(line) + "\n";
  }
  return write_file_atomic(options_.out / kPredictions, lines);
}

Status QuestionRecipe::prove() {
  TAILOR_CHECK(read_answers());
  TAILOR_CHECK(write_predictions());
  ui_.stage("asking the package");
  const fs::path package = run_directory().package();
  TAILOR_TRY(PackageManifest manifest, read_package(package));
  TAILOR_TRY(QuestionModel model, QuestionModel::load(package, manifest, {.threads = threads()}));
  const auto rows = test_rows();
  const Stopwatch watch;
  TAILOR_TRY(served_, model.answer(rows, progress(), cancel_));
  const double seconds = watch.seconds();
  std::size_t same = 0;
  for (std::size_t i = 0; i < rows.size(); ++i)
    same += served_[i].begin == trained_[i].begin && served_[i].end == trained_[i].end ? 1 : 0;
  served_json_ = Json{{"n_scored", rows.size()},
                      {"same_answers", same},
                      {"metrics", scores(served_)},
                      {"seconds_per_row", seconds / static_cast<double>(std::max<std::size_t>(1, rows.size()))},
                      {"package_bytes", tree_bytes(package)}};
  Json plain{{"n_scored", rows.size()}};
  for (const auto& [metric, value] : served_json_.at("metrics").items()) plain[metric] = value.at("value");
  manifest.scores = std::move(plain);
  return close_package(package, std::move(manifest), /*include_base_model=*/true);
}

Result<TuneSummary> QuestionRecipe::finish() {
  Json result = training_figures(by_, options_, threads(), task_.run.result);
  result["task"] = options_.task;
  result["no_answer"] = data_.no_answer;
  const auto rows = [&](TokenPart part) { return data_.rows_of(part).size(); };
  result["test"] = Json{{"n_scored", rows(TokenPart::kTest)}, {"metrics", scores(trained_)}};
  result["served"] = served_json_;
  result["data"] = Json{{"files", data_.files}, {"rows", data_.rows.size()}};
  result["split"] = Json{{"train", rows(TokenPart::kTrain)},
                         {"validation", rows(TokenPart::kValidation)},
                         {"test", rows(TokenPart::kTest)}};
  Json files{"result.json", kPredictions, "package", "log.txt"};
  TAILOR_CHECK(keep_hugging_face(options_, by_, task_.run, files));
  return finish_tune_run(options_.out, task_.run, watch_.seconds(), std::move(files), std::move(result));
}

Result<TuneSummary> go_through(QuestionRecipe& recipe) {
  TAILOR_CHECK(recipe.train());
  TAILOR_CHECK(recipe.package());
  TAILOR_CHECK(recipe.prove());
  return recipe.finish();
}

}  // namespace

bool tunes_questions(const TuneOptions& options) {
  return options.task == kTaskSpans;
}

Result<TuneSummary> tune_questions(TuneOptions options, const std::string& command_line, RunUi& ui,
                                   const CancelToken& cancel) {
  QuestionRecipe recipe(std::move(options), ui, cancel);
  TAILOR_CHECK(recipe.begin());
  TAILOR_CHECK(recipe.write_start(command_line));
  return go_through(recipe);
}

Result<TuneSummary> resume_questions(TuneOptions options, const Json& run, RunUi& ui, const CancelToken& cancel) {
  QuestionRecipe recipe(std::move(options), ui, cancel);
  TAILOR_CHECK(recipe.begin());
  TAILOR_CHECK(recipe.same_data(run));
  return go_through(recipe);
}

}  // namespace tailor
