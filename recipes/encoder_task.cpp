#include "recipes/encoder_task.h"

#include <fmt/format.h>

#include <algorithm>

#include "core/files.h"
#include "core/system.h"

namespace tailor {
namespace {

namespace fs = std::filesystem;

constexpr const char* kPredictions = "test_predictions.jsonl";

/// choose_tuning(), for an encoder and a method that goes with any task.
Result<TunedBy> choose_for_task(const TuneOptions& options) {
  TAILOR_TRY(TunedBy by, choose_tuning(options, ModelKind::kEncoder));
  const bool decoder = by.model.kind != ModelKind::kEncoder;
  if (!decoder && !by.method.one_label) return by;
  return Error{ErrorCode::kInvalidArgument,
               decoder
                   ? fmt::format("--task {} is for encoders, {} is a decoder", options.task, by.model.id)
                   : fmt::format("method {} is for one label a text, not for --task {}", by.method.name, options.task),
               decoder ? "leave --model out, or name an encoder" : "method head trains the output layer alone"};
}

}  // namespace

EncoderTask::EncoderTask(TuneOptions options, RunUi& ui, const CancelToken& cancel)
    : options_(std::move(options)), ui_(ui), cancel_(cancel) {}

int EncoderTask::threads() const {
  return options_.threads > 0 ? options_.threads : system_info().cores;
}

ProgressFn EncoderTask::progress() const {
  return [this](const Progress& p) { ui_.progress(p, watch_.seconds(), 0); };
}

Result<TuneSummary> EncoderTask::start(const std::string& command_line) {
  TAILOR_CHECK(begin());
  TAILOR_CHECK(make_directories(options_.out));
  TAILOR_CHECK(write_run_json(RunDirectory{options_.out}.options(), kTuneRunFormat, kTuneRunVersion, command_line,
                              to_json(options_), data().files, data().file_hashes));
  return go_on();
}

Result<TuneSummary> EncoderTask::resume(const Json& run) {
  TAILOR_CHECK(begin());
  TAILOR_CHECK(
      require_unchanged(data().files, data().file_hashes, run.at("file_hashes").get<std::vector<std::string>>()));
  return go_on();
}

Status EncoderTask::begin() {
  TAILOR_TRY(by_, choose_for_task(options_));
  ui_.stage("reading the data");
  TAILOR_CHECK(read());
  for (const std::string& warning : data().warnings) ui_.warning(warning);
  return {};
}

Status EncoderTask::train() {
  ui_.stage(fmt::format("making {} ready", by_.model.id));
  TAILOR_TRY(served_, ready_model(by_.model, ModelUse::kServing, progress()));
  TAILOR_TRY(base_, ready_model(by_.model, ModelUse::kTraining, progress()));
  ui_.stage("tokenising");
  TAILOR_TRY(const Tokenizer tokenizer, Tokenizer::load(base_.gguf));
  TAILOR_TRY(const EncoderReading reading, encoder_reading(base_.gguf, options_.text_template));
  const fs::path directory = options_.out / kTrainDirectory;
  TAILOR_CHECK(make_directories(directory));
  TAILOR_CHECK(write_token_file(options_.out / kTokensFile, tokenize(tokenizer, reading)));
  Json job = tune_job(options_, by_.method.name, /*validates=*/!data().rows_of(TokenPart::kValidation).empty());
  job["task"] = options_.task;
  job["base"] = fs::absolute(base_.gguf).string();
  job["settings"] = options_.settings;
  job["export_merged"] = true;
  if (options_.export_hugging_face) job["export_hugging_face"] = true;
  const std::string kept_by = options_.metric.empty() ? metric() : options_.metric;
  if (!kept_by.empty()) job["metric"] = kept_by;
  TrainingLog log = training_log(options_.out, /*labels=*/false);
  TAILOR_TRY(run_,
             run_training(std::move(job), directory / "run", threads(), "training", ui_, progress(), cancel_, &log));
  return {};
}

Status EncoderTask::package(TensorType matrices) {
  ui_.stage("making the package");
  const fs::path staging = options_.out / "package.new";
  TAILOR_CHECK(remove_tree(staging));
  TAILOR_CHECK(make_directories(staging));
  TAILOR_TRY(TunedPackage made, package_tuned_encoder(run_, base_, served_, matrices, staging));
  Json files = Json::array();
  for (std::size_t i = 0; i < data().files.size(); ++i)
    files.push_back(Json{{"file", fs::path(data().files[i]).filename().string()}, {"sha256", data().file_hashes[i]}});
  PackageManifest manifest;
  manifest.method = std::string(by_.method.name);
  manifest.base = std::move(made.base);
  manifest.settings = run_.result.at("settings");
  manifest.text_columns = options_.text_columns;
  manifest.text_template = options_.text_template;
  manifest.data = Json{{"files", files},
                       {"fitted_on", "train"},
                       {"rows", data().rows_of(TokenPart::kTrain).size()},
                       {"seed", options_.seed}};
  manifest.trial = run_name(options_.out);
  TAILOR_CHECK(describe(manifest));
  TAILOR_CHECK(close_package(staging, std::move(manifest), /*include_base_model=*/true));
  return replace_directory(staging, package_directory());
}

Status EncoderTask::prove() {
  TAILOR_CHECK(read_answers());
  const std::size_t rows = data().rows_of(TokenPart::kTest).size();
  std::string lines;
  for (std::size_t i = 0; i < rows; ++i) lines += dump_json(prediction(i)) + "\n";
  TAILOR_CHECK(write_file_atomic(options_.out / kPredictions, lines));
  TAILOR_TRY(proven_, prove_package(
                          options_, threads(), ui_, [this](std::string_view name) { return ask_package(name); },
                          [this](TensorType matrices) { return package(matrices); }));
  return {};
}

Result<Json> EncoderTask::ask_package(std::string_view what) {
  ui_.stage(fmt::format("asking {}", what));
  const std::size_t rows = data().rows_of(TokenPart::kTest).size();
  TAILOR_TRY(PackageManifest manifest, read_package(package_directory()));
  TAILOR_TRY(Answered answered, ask(manifest));
  Json figures = std::move(answered.figures);
  Json plain{{"n_scored", rows}};
  for (const auto& [name, value] : figures.at("metrics").items()) plain[name] = value.at("value");
  manifest.scores = std::move(plain);
  TAILOR_CHECK(close_package(package_directory(), std::move(manifest), /*include_base_model=*/true));
  figures["n_scored"] = rows;
  figures["seconds_per_row"] = answered.seconds / static_cast<double>(std::max<std::size_t>(1, rows));
  figures["package_bytes"] = tree_bytes(package_directory());
  return figures;
}

Result<TuneSummary> EncoderTask::go_on() {
  TAILOR_CHECK(train());
  TAILOR_CHECK(package());
  TAILOR_CHECK(prove());
  Json result = training_figures(by_, options_, threads(), run_.result);
  result["task"] = options_.task;
  report(result);
  const auto rows = [&](TokenPart part) { return data().rows_of(part).size(); };
  result["test"]["n_scored"] = rows(TokenPart::kTest);
  result["served"] = proven_.served;
  if (!proven_.quantized.is_null()) result["quantized"] = proven_.quantized;
  result["data"]["files"] = data().files;
  result["data"]["rows"] = data().parts.size();
  result["split"] = Json{{"train", rows(TokenPart::kTrain)},
                         {"validation", rows(TokenPart::kValidation)},
                         {"test", rows(TokenPart::kTest)}};
  Json files{"result.json", kPredictions, "package", "log.txt"};
  TAILOR_CHECK(keep_hugging_face(options_, by_, run_, files));
  return finish_tune_run(options_.out, run_, watch_.seconds(), std::move(files), std::move(result));
}

}  // namespace tailor
