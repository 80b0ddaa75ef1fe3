#include "recipes/tune_steps.h"

#include <fmt/format.h>

#include "core/files.h"
#include "fit/package.h"
#include "fit/paths.h"
#include "fit/trial.h"
#include "model/tokenizer.h"

namespace tailor {

Status check_tune_options(const TuneOptions& options) {
  const auto wrong = [](std::string message, std::string hint) {
    return Error{ErrorCode::kInvalidArgument, std::move(message), std::move(hint)};
  };
  const bool distills = options.method == "distill";
  if (distills && options.teacher.empty())
    return wrong("method distill needs a teacher", "--teacher names a package, or a file of its answers");
  if (!distills && !options.teacher.empty())
    return wrong(fmt::format("--teacher means nothing to method {}", options.method), "it belongs to --method distill");
  if (!distills && !options.unlabelled_file.empty())
    return wrong(fmt::format("--unlabelled means nothing to method {}: nobody answers those texts", options.method),
                 "it belongs to --method distill");
  const bool soft =
      options.method == "prompt-tuning" || options.method == "p-tuning" || options.method == "prefix-tuning";
  if (!soft && !options.init_text.empty())
    return wrong(fmt::format("--init-text means nothing to method {}", options.method),
                 "it belongs to prompt-tuning, p-tuning and prefix-tuning");
  return {};
}

Result<Json> job_settings(const TuneOptions& options, const std::filesystem::path& gguf) {
  Json settings = options.settings;
  if (options.init_text.empty()) return settings;
  TAILOR_TRY(const Tokenizer tokenizer, Tokenizer::load(gguf));
  const TokenList tokens = tokenizer.encode(options.init_text, /*add_special=*/false);
  if (tokens.empty())
    return Error{ErrorCode::kInvalidArgument, "--init-text has no token", "give a text, or leave it out"};
  settings["soft_prompt"]["start"] = tokens;
  return settings;
}

Result<TunedBy> choose_tuning(const TuneOptions& options, std::optional<ModelKind> kind) {
  TAILOR_CHECK(check_tune_options(options));
  TunedBy by;
  TAILOR_TRY(by.method, find_tune_method(options.method));
  std::string name = options.model;
  for (const BuiltInModel& model : built_in_models()) {
    if (name.empty() && model.kind == kind.value_or(by.method.usual)) name = model.id;
  }
  TAILOR_TRY(by.model, resolve_model(name, default_models_directory()));
  const bool encoder = by.model.kind == ModelKind::kEncoder;
  if (encoder ? by.method.encoders : by.method.decoders) return by;
  return Error{ErrorCode::kInvalidArgument,
               fmt::format("method {} tunes {}s, but {} is {} {}", by.method.name, encoder ? "decoder" : "encoder",
                           by.model.id, encoder ? "an" : "a", name_of(by.model.kind)),
               "`tailor tune --method list` shows which method tunes what; `tailor models list` the models"};
}

Json tune_job(const TuneOptions& options, std::string_view method, bool validates) {
  return Json{{"format", "tailor-tune-job"},
              {"version", 1},
              {"method", method},
              {"tokens", std::filesystem::absolute(options.out / kTokensFile).string()},
              {"seed", options.seed},
              {"early_stopping_patience", options.patience},
              {"evaluate_every_epochs", validates ? 1.0 : 0.0}};
}

Result<TuneRun> run_training(Json job, const std::filesystem::path& directory, int threads, std::string_view stage,
                             RunUi& ui, const ProgressFn& progress, const CancelToken& cancel) {
  ui.stage(stage);
  std::error_code ignored;
  if (std::filesystem::exists(directory / "result.json", ignored)) {  // written last
    TAILOR_TRY(Json result, read_json(directory / "result.json"));
    return TuneRun{std::move(result), directory};
  }
  const auto log = [&](const Json& event) {
    if (event.value("event", "") == "warning") ui.warning(event.value("message", ""));
    ui.event(event);
  };
  return run_tune(std::move(job), directory, threads, stage, progress, cancel, log);
}

Json training_figures(const TunedBy& by, const TuneOptions& options, int threads, const Json& training) {
  Json result{{"format", "tailor-tune-result"}, {"version", kTuneResultVersion}, {"method", by.method.name},
              {"base_model", by.model.id},      {"seed", options.seed},          {"threads", threads}};
  for (const char* key : {"settings",
                          "stopped",
                          "steps",
                          "total_steps",
                          "resumed_from_step",
                          "examples",
                          "tokens",
                          "computed_tokens",
                          "trained_parameters",
                          "wall_seconds",
                          "cpu_seconds",
                          "evaluation_seconds",
                          "evaluation_cpu_seconds",
                          "process_seconds",
                          "process_cpu_seconds",
                          "peak_memory_bytes",
                          "skipped_steps",
                          "rollbacks",
                          "rate_scale",
                          "excluded_rows",
                          "metric",
                          "losses",
                          "evaluations"}) {
    result[key] = training.at(key);
  }
  result["best_step"] = training.at("best").is_null() ? Json(nullptr) : training.at("best").at("step");
  return result;
}

Result<TuneSummary> finish_tune_run(const std::filesystem::path& out, const TuneRun& run, double elapsed_seconds,
                                    Json files, Json result) {
  result["elapsed_seconds"] = elapsed_seconds;
  result["versions"] = Json{{"tailor", TAILOR_VERSION}, {"package", kPackageVersion}};
  result["files"] = std::move(files);
  TAILOR_CHECK(tailor::copy_file(run.directory / "log.txt", out / "log.txt"));
  TAILOR_CHECK(remove_tree(out / kTrainDirectory));
  TAILOR_CHECK(write_json_atomic(RunDirectory{out}.result(), result));
  return TuneSummary{out, std::move(result)};
}

}  // namespace tailor
