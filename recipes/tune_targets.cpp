#include "recipes/tune_targets.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "core/files.h"
#include "core/safetensors.h"
#include "core/stopwatch.h"
#include "core/system.h"
#include "eval/target_scores.h"
#include "fit/prepared_data.h"
#include "fit/serving.h"
#include "fit/target_data.h"
#include "recipes/encoder_task.h"
#include "recipes/run_directory.h"

namespace tailor {
namespace {

namespace fs = std::filesystem;

constexpr const char* kPredictions = "test_predictions.jsonl";

/// The trainer's answers of a part, rows in the order of the file: values, or probabilities of all labels.
Result<std::vector<float>> read_answers(const fs::path& file, TargetKind kind) {
  TAILOR_TRY(const SafetensorsFile stored, SafetensorsFile::open(file));
  TAILOR_TRY(const SafeTensor tensor,
             kind == TargetKind::kNumber ? stored.get("values", "F32", 1) : stored.get("probabilities", "F32", 2));
  std::vector<float> out(tensor.bytes.size() / sizeof(float));
  std::memcpy(out.data(), tensor.bytes.data(), tensor.bytes.size());
  return out;
}

class TargetRecipe {
 public:
  TargetRecipe(TuneOptions options, RunUi& ui, const CancelToken& cancel)
      : options_(std::move(options)), ui_(ui), cancel_(cancel) {}

  Status choose();
  Status read();
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
  bool number() const { return data_.kind == TargetKind::kNumber; }
  ProgressFn progress() const {
    return [this](const Progress& p) { ui_.progress(p, watch_.seconds(), 0); };
  }
  std::vector<std::uint8_t> said(std::span<const float> probabilities) const;
  std::vector<std::uint8_t> truth_of(TokenPart part) const;
  Json scores(std::span<const float> answers) const;  // of the test part, with intervals
  Json names_of(std::span<const std::uint8_t> set) const;
  Status write_predictions() const;

  TuneOptions options_;
  RunUi& ui_;
  const CancelToken& cancel_;
  const Stopwatch watch_;
  TunedBy by_;
  PreparedTargets data_;
  TrainedTask trained_task_;
  PackageTarget target_;
  std::vector<float> trained_, answered_;  // of the test rows: numbers in their own unit, or probabilities
  Json served_json_;
};

Status TargetRecipe::choose() {
  TAILOR_TRY(by_, choose_for_task(options_));
  return {};
}

Status TargetRecipe::read() {
  ui_.stage("reading the data");
  TAILOR_TRY(data_, prepare_targets(options_));
  for (const std::string& warning : data_.warnings) ui_.warning(warning);
  return {};
}

Status TargetRecipe::write_start(const std::string& command_line) const {
  TAILOR_CHECK(make_directories(options_.out));
  return write_run_json(run_directory().options(), kTuneRunFormat, kTuneRunVersion, command_line, to_json(options_),
                        data_.files, data_.file_hashes);
}

Status TargetRecipe::train() {
  TAILOR_TRY(trained_task_, train_task(
                                options_, by_, threads(), !data_.rows_of(TokenPart::kValidation).empty(), /*metric=*/"",
                                [&](const Tokenizer& tokenizer, const EncoderReading& reading) {
                                  return tokenize_targets(data_, tokenizer, reading);
                                },
                                ui_, progress(), cancel_));
  return {};
}

std::vector<std::uint8_t> TargetRecipe::truth_of(TokenPart part) const {
  std::vector<std::uint8_t> out;
  for (const auto r : data_.rows_of(part)) {
    for (std::size_t l = 0; l < data_.width(); ++l) out.push_back(data_.targets[r * data_.width() + l] > 0 ? 1 : 0);
  }
  return out;
}

Status TargetRecipe::package() {
  ui_.stage("making the package");
  target_ = {.kind = number() ? PackageTarget::Kind::kNumber : PackageTarget::Kind::kLabelSet};
  if (number()) {
    target_.mean = data_.mean;
    target_.deviation = data_.deviation;
  } else if (!options_.label_separator.empty()) {
    target_.separator = options_.label_separator;
  }
  if (!number() && !data_.rows_of(TokenPart::kValidation).empty()) {
    TAILOR_TRY(const std::vector<float> validation,
               read_answers(trained_task_.run.directory / "validation_predictions.safetensors", data_.kind));
    target_.threshold = best_threshold(validation, truth_of(TokenPart::kValidation), data_.width());
  }
  return package_task(options_, by_, trained_task_,
                      {data_.files, data_.file_hashes, data_.rows_of(TokenPart::kTrain).size()},
                      {.serving = std::string(kServeTunedTargets), .target = target_, .labels = data_.label_names});
}

std::vector<std::uint8_t> TargetRecipe::said(std::span<const float> probabilities) const {
  std::vector<std::uint8_t> out;
  for (const float p : probabilities) out.push_back(p >= target_.threshold ? 1 : 0);
  return out;
}

Json TargetRecipe::scores(std::span<const float> answers) const {
  if (!number()) {
    const auto truth = truth_of(TokenPart::kTest), predicted = said(answers);
    return to_json(bootstrap_label_sets({data_.width(), truth, predicted}, {.seed = options_.seed}));
  }
  std::vector<double> truth, predicted(answers.begin(), answers.end());
  for (const auto r : data_.rows_of(TokenPart::kTest)) truth.push_back(data_.targets[r]);
  return to_json(bootstrap_numbers(truth, predicted, {.seed = options_.seed}));
}

Json TargetRecipe::names_of(std::span<const std::uint8_t> set) const {
  Json names = Json::array();
  for (std::size_t l = 0; l < set.size(); ++l) {
    if (set[l] != 0) names.push_back(data_.label_names[l]);
  }
  return names;
}

/// A line a test row, as the trainer computed it.
Status TargetRecipe::write_predictions() const {
  const auto rows = data_.rows_of(TokenPart::kTest);
  const auto truth = truth_of(TokenPart::kTest), predicted = said(trained_);
  const std::size_t width = data_.width();
  std::string lines;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    Json line{{"line", data_.lines[rows[i]]}};
    if (number()) {
      line["target"] = data_.targets[rows[i]];
      line["predicted"] = trained_[i];
    } else {
      line["labels"] = names_of(std::span(truth).subspan(i * width, width));
      line["predicted"] = names_of(std::span(predicted).subspan(i * width, width));
      line["p"] = std::vector<float>(trained_.begin() + static_cast<std::ptrdiff_t>(i * width),
                                     trained_.begin() + static_cast<std::ptrdiff_t>((i + 1) * width));
    }
    lines += dump_json(line) + "\n";
  }
  return write_file_atomic(options_.out / kPredictions, lines);
}

Status TargetRecipe::prove() {
  TAILOR_TRY(trained_, read_answers(trained_task_.run.directory / "test_predictions.safetensors", data_.kind));
  if (number()) {
    for (float& value : trained_) value = static_cast<float>(data_.mean + data_.deviation * value);
  }
  TAILOR_CHECK(write_predictions());
  ui_.stage("asking the package");
  TAILOR_TRY(LoadedPackage package, load_package(run_directory().package(), {.threads = threads()}));
  std::vector<std::string> texts;
  for (const auto r : data_.rows_of(TokenPart::kTest)) texts.push_back(data_.texts[r]);
  const Stopwatch watch;
  TAILOR_TRY(const Matrix answers, package.classifier->probabilities(texts, progress(), cancel_));
  const double seconds = watch.seconds();
  answered_ = answers.data;
  double largest = 0;
  for (std::size_t i = 0; i < answered_.size(); ++i)
    largest = std::max(largest, std::abs(static_cast<double>(answered_[i]) - trained_[i]));
  served_json_ = Json{{"n_scored", texts.size()},
                      {"largest_difference", largest},
                      {"metrics", scores(answered_)},
                      {"seconds_per_row", seconds / static_cast<double>(std::max<std::size_t>(1, texts.size()))},
                      {"package_bytes", tree_bytes(run_directory().package())}};
  if (!number()) {
    const auto a = said(trained_), b = said(answered_);
    const std::size_t width = data_.width();
    std::size_t same = 0;
    for (std::size_t i = 0; i < texts.size(); ++i)
      same += std::memcmp(a.data() + i * width, b.data() + i * width, width) == 0 ? 1 : 0;
    served_json_["same_labels"] = same;
  }
  Json plain{{"n_scored", texts.size()}};
  for (const auto& [metric, value] : served_json_.at("metrics").items()) plain[metric] = value.at("value");
  package.manifest.scores = std::move(plain);
  return close_package(run_directory().package(), std::move(package.manifest), /*include_base_model=*/true);
}

Result<TuneSummary> TargetRecipe::finish() {
  Json result = training_figures(by_, options_, threads(), trained_task_.run.result);
  result["task"] = options_.task;
  if (number())
    result["target"] = Json{{"column", options_.label_column}, {"mean", data_.mean}, {"deviation", data_.deviation}};
  else
    result["threshold"] = target_.threshold;
  const auto rows = [&](TokenPart part) { return data_.rows_of(part).size(); };
  result["test"] = Json{{"n_scored", rows(TokenPart::kTest)}, {"metrics", scores(trained_)}};
  result["served"] = served_json_;
  result["data"] = Json{{"files", data_.files}, {"rows", data_.rows()}, {"labels", data_.label_names}};
  result["split"] = Json{{"train", rows(TokenPart::kTrain)},
                         {"validation", rows(TokenPart::kValidation)},
                         {"test", rows(TokenPart::kTest)}};
  Json files{"result.json", kPredictions, "package", "log.txt"};
  TAILOR_CHECK(keep_hugging_face(options_, by_, trained_task_.run, files));
  return finish_tune_run(options_.out, trained_task_.run, watch_.seconds(), std::move(files), std::move(result));
}

Result<TuneSummary> go_through(TargetRecipe& recipe) {
  TAILOR_CHECK(recipe.train());
  TAILOR_CHECK(recipe.package());
  TAILOR_CHECK(recipe.prove());
  return recipe.finish();
}

}  // namespace

bool tunes_targets(const TuneOptions& options) {
  return options.task == kTaskRegression || options.task == kTaskMultiLabel;
}

Result<TuneSummary> tune_targets(TuneOptions options, const std::string& command_line, RunUi& ui,
                                 const CancelToken& cancel) {
  TargetRecipe recipe(std::move(options), ui, cancel);
  TAILOR_CHECK(recipe.choose());
  TAILOR_CHECK(recipe.read());
  TAILOR_CHECK(recipe.write_start(command_line));
  return go_through(recipe);
}

Result<TuneSummary> resume_targets(TuneOptions options, const Json& run, RunUi& ui, const CancelToken& cancel) {
  TargetRecipe recipe(std::move(options), ui, cancel);
  TAILOR_CHECK(recipe.choose());
  TAILOR_CHECK(recipe.read());
  TAILOR_CHECK(recipe.same_data(run));
  return go_through(recipe);
}

}  // namespace tailor
