#include "recipes/encoder_task.h"

#include <fmt/format.h>

#include "core/files.h"
#include "recipes/run_directory.h"

namespace tailor {

namespace fs = std::filesystem;

Result<TunedBy> choose_for_task(const TuneOptions& options) {
  TAILOR_TRY(TunedBy by, choose_tuning(options, ModelKind::kEncoder));
  const bool decoder = by.model.kind != ModelKind::kEncoder;
  if (!decoder && by.method.name != "contrastive" && by.method.name != "features" && by.method.name != "distill")
    return by;
  return Error{ErrorCode::kInvalidArgument,
               decoder
                   ? fmt::format("--task {} is for encoders, {} is a decoder", options.task, by.model.id)
                   : fmt::format("method {} is for one label a text, not for --task {}", by.method.name, options.task),
               decoder ? "leave --model out, or name an encoder" : "method head trains the output layer alone"};
}

Result<TrainedTask> train_task(const TuneOptions& options, const TunedBy& by, int threads, bool validates,
                               const std::string& metric, const Tokenize& tokenize, RunUi& ui,
                               const ProgressFn& progress, const CancelToken& cancel) {
  TrainedTask out;
  ui.stage(fmt::format("making {} ready", by.model.id));
  TAILOR_TRY(out.served, ready_model(by.model, ModelUse::kServing, progress));
  TAILOR_TRY(out.base, ready_model(by.model, ModelUse::kTraining, progress));
  ui.stage("tokenising");
  TAILOR_TRY(const Tokenizer tokenizer, Tokenizer::load(out.base.gguf));
  TAILOR_TRY(const EncoderReading reading, encoder_reading(out.base.gguf, options.text_template));
  const fs::path directory = options.out / kTrainDirectory;
  TAILOR_CHECK(make_directories(directory));
  TAILOR_CHECK(write_token_file(options.out / kTokensFile, tokenize(tokenizer, reading)));
  Json job = tune_job(options, by.method.name, validates);
  job["task"] = options.task;
  job["base"] = fs::absolute(out.base.gguf).string();
  job["settings"] = options.settings;
  job["export_merged"] = true;
  if (options.export_hugging_face) job["export_hugging_face"] = true;
  const std::string& kept_by = options.metric.empty() ? metric : options.metric;
  if (!kept_by.empty()) job["metric"] = kept_by;
  TrainingLog log = training_log(options.out, /*labels=*/false);
  TAILOR_TRY(out.run, run_training(std::move(job), directory / "run", threads, "training", ui, progress, cancel, &log));
  return out;
}

Status package_task(const TuneOptions& options, const TunedBy& by, const TrainedTask& trained, const TaskData& data,
                    PackageManifest manifest) {
  const fs::path staging = options.out / "package.new";
  TAILOR_CHECK(remove_tree(staging));
  TAILOR_CHECK(make_directories(staging));
  TAILOR_TRY(TunedPackage made,
             package_tuned_encoder(trained.run, trained.base, trained.served, TensorType::kF16, staging));
  Json files = Json::array();
  for (std::size_t i = 0; i < data.files.size(); ++i)
    files.push_back(Json{{"file", fs::path(data.files[i]).filename().string()}, {"sha256", data.file_hashes[i]}});
  manifest.method = std::string(by.method.name);
  manifest.base = std::move(made.base);
  manifest.settings = trained.run.result.at("settings");
  manifest.text_columns = options.text_columns;
  manifest.text_template = options.text_template;
  manifest.data = Json{{"files", files}, {"fitted_on", "train"}, {"rows", data.train_rows}, {"seed", options.seed}};
  TAILOR_CHECK(close_package(staging, std::move(manifest), /*include_base_model=*/true));
  return replace_directory(staging, RunDirectory{options.out}.package());
}

}  // namespace tailor
