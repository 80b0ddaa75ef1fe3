#include "recipes/tune_steps.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <chrono>

#include "config/setting.h"
#include "core/files.h"
#include "core/peft_adapter.h"
#include "fit/package.h"
#include "fit/paths.h"
#include "fit/quantized_package.h"
#include "fit/trial.h"
#include "fit/tune_report.h"
#include "fit/tuned_model.h"
#include "model/gguf_file.h"
#include "model/tokenizer.h"

namespace tailor {

namespace {

/// What would change nothing is said before anything is computed; tailor-tune would say the same later.
Status refuse_foreign_settings(const TuneOptions& options, const TunedBy& by) {
  const MethodPart* method = find_method_part(by.method.name);
  const Json given = to_json(options);
  const ModelSort sort = by.model.kind == ModelKind::kEncoder ? ModelSort::kEncoder : ModelSort::kDecoder;
  for (const Setting& setting : tune_settings()) {
    const bool is_given = setting.key == "head_start"    ? !options.head_start
                          : setting.key == "label_names" ? options.label_names != "auto"
                          : setting.key == "lora.start"  ? !options.adapter.empty()
                          : setting.target.starts_with("/settings/")
                              ? given.contains(Json::json_pointer(std::string(setting.target)))
                              : false;
    if (!is_given || method == nullptr || means_something(setting, *method, sort)) continue;
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("{} means nothing to method {} of {}", setting.key, by.method.name,
                             sort == ModelSort::kEncoder ? "an encoder" : "a decoder"),
                 "leave it out"};
  }
  return {};
}

/// What trains the rows of new tokens.
bool learns_low_rank(const MethodPart& method, bool encoder) {
  return method.part == SettingPart::kLora || (method.part == SettingPart::kDistill && !encoder);
}

Status check_added_tokens(const TuneOptions& options, const TunedBy& by) {
  if (options.added_tokens.empty()) return {};
  if (by.model.kind == ModelKind::kEncoder) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("added_tokens are for decoders, {} is an encoder", by.model.id), "leave them out"};
  }
  const MethodPart* method = find_method_part(by.method.name);
  if (by.method.name == "full" || (method != nullptr && learns_low_rank(*method, false))) return {};
  return Error{
      ErrorCode::kInvalidArgument,
      fmt::format("method {} does not train the table of words, so added_tokens would stay unlearnt", by.method.name),
      "use method lora, or full"};
}

/// What is no adapter that can be gone on with is said before anything is computed; tailor-tune sees the rest.
Status check_adapter(const TuneOptions& options) {
  std::error_code ignored;
  if (options.adapter.empty()) return {};
  if (!std::filesystem::is_directory(options.adapter, ignored)) {
    TAILOR_CHECK(GgufFile::open(options.adapter));
    return {};
  }
  TAILOR_TRY(const PeftAdapter adapter, PeftAdapter::open(options.adapter));
  return adapter.check_low_rank();
}

bool answers_as_trained(const Json& served) {
  constexpr double kSame = 0.995, kLossApart = 0.01;
  if (served.contains("loss")) return served.at("largest_difference").get<double>() <= kLossApart;
  for (const auto& [same, all] :
       {std::pair{"same_labels", "n_scored"}, {"same_tags", "words"}, {"same_answers", "n_scored"}}) {
    if (served.contains(same)) return served.at(same).get<double>() >= kSame * served.at(all).get<double>();
  }
  return true;  // numbers: how far they are apart is said, in their own unit
}

std::string f32_note(const Json& served) {
  const auto differing = [&](const char* same, const char* all) {
    return served.at(all).get<std::int64_t>() - served.at(same).get<std::int64_t>();
  };
  const std::string what =
      served.contains("loss") ? fmt::format("losses are up to {:.3f} a token from the trainer's",
                                            served.at("largest_difference").get<double>())
      : served.contains("same_tags")
          ? fmt::format("{} words get another tag than the trainer's", differing("same_tags", "words"))
      : served.contains("same_answers")
          ? fmt::format("{} questions get another answer than the trainer's", differing("same_answers", "n_scored"))
          : fmt::format("{} test rows get another label than the trainer's", differing("same_labels", "n_scored"));
  return fmt::format("With weights rounded to f16 {}; the package keeps them in f32.", what);
}

Status write_report(const std::filesystem::path& out, const Json& result) {
  TuneReportInput input{result, read_training_log(out), "", ""};
  if (const auto run = read_json(RunDirectory{out}.options()); run && run->is_object()) {
    input.command = run->value("command", std::string());
    if (run->contains("options"))
      input.data = std::filesystem::path((*run)["options"].value("data", std::string())).filename().string();
  }
  TAILOR_CHECK(write_file_atomic(out / "report.html", tune_report_html(input)));
  return write_file_atomic(out / "report.md", tune_report_markdown(input));
}

}  // namespace

Status check_tune_options(const TuneOptions& options) {
  if (options.refit && (options.method == "distill" || !options.task.empty())) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("refit is for one label a text, not for {}",
                             options.method == "distill" ? "method distill" : "task " + options.task),
                 "leave it out; --validation-fraction says how many rows are held out"};
  }
  if (options.method != "distill" || !options.teacher.empty()) return {};
  return Error{ErrorCode::kInvalidArgument, "method distill needs a teacher",
               "--teacher names a package, or a file of its answers"};
}

Result<ProvenPackage> prove_package(const TuneOptions& options, int threads, RunUi& ui,
                                    const std::function<Result<Json>(std::string_view name)>& ask,
                                    const std::function<Status(TensorType matrices)>& make) {
  const std::filesystem::path package = RunDirectory{options.out}.package();
  ProvenPackage out;
  TAILOR_TRY(out.served, ask("the package"));
  out.served["matrices"] = "f16";
  std::error_code ignored;
  if (!answers_as_trained(out.served) && std::filesystem::exists(package / kTunedFile, ignored)) {
    ui.note(f32_note(out.served));
    TAILOR_CHECK(make(TensorType::kF32));
    TAILOR_TRY(out.served, ask("the package"));
    out.served["matrices"] = "f32";
  }
  if (options.quantize.empty()) return out;
  TAILOR_CHECK(quantize_package(package, options.quantize, threads));
  TAILOR_TRY(out.quantized, ask("the quantized package"));
  out.quantized["type"] = options.quantize;
  return out;
}

ModelUse serving_use(const TuneOptions& options, const ModelInfo& model) {
  const bool rounded = model.kind == ModelKind::kDecoder && options.settings.value("dtype", "") == "bf16";
  return rounded ? ModelUse::kRounded : ModelUse::kServing;
}

/// With low-rank updates their rows alone are trained, as PEFT's trainable_token_indices does, unless the tables are
/// trained whole.
static Status train_added_tokens(const TuneOptions& options, const Tokenizer& tokenizer,
                                 const std::filesystem::path& gguf, Json& settings) {
  const MethodPart* method = find_method_part(options.method);
  if (method == nullptr || !learns_low_rank(*method, false)) return {};
  const Json whole = settings.value("/lora/modules_to_save"_json_pointer, Json::array());
  if (!whole.empty()) {
    TAILOR_TRY(const GgufFile file, GgufFile::open(gguf));
    if (whole.size() > 1 || file.tensor("output.weight") == nullptr) return {};
    return Error{ErrorCode::kInvalidArgument,
                 "added_tokens: lora.modules_to_save trains one of the table of words and the output layer, and new "
                 "tokens need both",
                 "name both, or none: then the rows of the new tokens are trained"};
  }
  Json ids = settings.value("/lora/trained_tokens"_json_pointer, Json::array());
  for (const std::string& token : options.added_tokens) {
    const TokenList tokens = tokenizer.encode(token, /*add_special=*/false);
    if (tokens.size() != 1)
      return Error{ErrorCode::kInternal, fmt::format("the added token \"{}\" is read as {}", token, tokens.size()), ""};
    if (std::find(ids.begin(), ids.end(), Json(tokens[0])) == ids.end()) ids.push_back(tokens[0]);
  }
  settings["lora"]["trained_tokens"] = std::move(ids);
  return {};
}

Result<Json> job_settings(const TuneOptions& options, const std::filesystem::path& gguf) {
  Json settings = options.settings;
  if (options.init_text.empty() && options.added_tokens.empty()) return settings;
  TAILOR_TRY(const Tokenizer tokenizer, Tokenizer::load(gguf));
  if (!options.added_tokens.empty()) TAILOR_CHECK(train_added_tokens(options, tokenizer, gguf, settings));
  if (options.init_text.empty()) return settings;
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
  if (encoder ? by.method.encoders : by.method.decoders) {
    TAILOR_CHECK(refuse_foreign_settings(options, by));
    TAILOR_CHECK(check_added_tokens(options, by));
    TAILOR_CHECK(check_adapter(options));
    if (encoder && !options.quantize.empty() && options.quantize != "q8_0") {
      return Error{ErrorCode::kInvalidArgument,
                   fmt::format("--quantize {} is for decoders, {} is an encoder", options.quantize, by.model.id),
                   "an encoder's package takes q8_0"};
    }
    return by;
  }
  return Error{ErrorCode::kInvalidArgument,
               fmt::format("method {} tunes {}s, but {} is {} {}", by.method.name, encoder ? "decoder" : "encoder",
                           by.model.id, encoder ? "an" : "a", name_of(by.model.kind)),
               "`tailor tune --method list` shows which method tunes what; `tailor models list` the models"};
}

Status take_changes(Json& run, const Json& given, const std::filesystem::path& directory) {
  namespace fs = std::filesystem;
  static constexpr std::array<std::string_view, 7> kMayChange = {"threads",
                                                                 "device",
                                                                 "deadline_seconds",
                                                                 "checkpoint_every_seconds",
                                                                 "checkpoint_every_steps",
                                                                 "micro_batch_tokens",
                                                                 "activation_checkpointing"};
  Json& began = run["options"];
  const fs::path began_in = run.value("directory", std::string());
  for (const Setting& setting : tune_settings()) {
    const Json::json_pointer at{std::string(setting.target)};
    if (!given.contains(at)) continue;
    const Json& value = given.at(at);
    if (std::find(kMayChange.begin(), kMayChange.end(), setting.key) != kMayChange.end()) {
      began[at] = value;
      continue;
    }
    const bool there = began.contains(at);
    if (there && began.at(at) == value) continue;
    std::error_code ignored;
    if (setting.key == "out" && fs::equivalent(value.get<std::string>(), directory, ignored)) continue;
    if (there && setting.section == Section::kData && value.is_string() &&
        fs::equivalent(value.get<std::string>(), began_in / began.at(at).get<std::string>(), ignored))
      continue;
    const bool unset = !there || began.at(at).is_null() || began.at(at) == "" || began.at(at).empty();
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("{}: the run began with {}, {} is asked for now", directory.string(),
                             unset ? fmt::format("no {} of its own", setting.key)
                                   : fmt::format("{} {}", setting.key, dump_json(began.at(at))),
                             dump_json(value)),
                 "resume it as it began, or start a new run with another --out"};
  }
  return {};
}

Json tune_job(const TuneOptions& options, std::string_view method, bool validates) {
  Json job{{"format", "tailor-tune-job"},
           {"version", 1},
           {"method", method},
           {"tokens", std::filesystem::absolute(options.out / kTokensFile).string()},
           {"seed", options.seed},
           {"early_stopping_patience", options.patience},
           {"evaluate_every_epochs", 1.0}};
  job.update(options.job);
  if (!options.adapter.empty()) job["adapter"] = std::filesystem::absolute(options.adapter).string();
  if (!validates) {
    job["evaluate_every_epochs"] = 0.0;
    job.erase("evaluate_every_steps");
  }
  return job;
}

TrainingLog training_log(const std::filesystem::path& out, bool labels) {
  return TrainingLog(out, labels, [] {
    return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
  });
}

Result<TuneRun> run_training(Json job, const std::filesystem::path& directory, int threads, std::string_view stage,
                             RunUi& ui, const ProgressFn& progress, const CancelToken& cancel, TrainingLog* log) {
  ui.stage(stage);
  std::error_code ignored;
  if (std::filesystem::exists(directory / "result.json", ignored)) {  // written last
    TAILOR_TRY(Json result, read_json(directory / "result.json"));
    return TuneRun{std::move(result), directory};
  }
  bool logs = log != nullptr;
  const auto on_event = [&](const Json& event) {
    const std::string kind = event.value("event", "");
    if (kind == "warning") ui.warning(event.value("message", ""));
    if (kind == "estimate" && event.contains("peak_memory_bytes"))
      ui.note(fmt::format("Training needs about {:.1f} GB of memory.", event["peak_memory_bytes"].get<double>() / 1e9));
    ui.event(event);
    if (!logs) return;
    if (const Status kept = log->add(event); !kept) {  // the training itself goes on
      logs = false;
      ui.warning(fmt::format("the training log ends here: {}", to_string(kept.error())));
    }
  };
  return run_tune(std::move(job), directory, threads, stage, progress, cancel, on_event);
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
                          "estimates",
                          "skipped_steps",
                          "rollbacks",
                          "rate_scale",
                          "excluded_rows",
                          "metric",
                          "losses",
                          "evaluations"}) {
    result[key] = training.at(key);
  }
  for (const char* key : {"device", "base_in_memory"}) result[key] = nullptr;
  if (training.contains("device")) result["device"] = training["device"];
  if (training.contains("model")) result["base_in_memory"] = training["model"].value("base_in_memory", Json());
  result["best_step"] = training.at("best").is_null() ? Json(nullptr) : training.at("best").at("step");
  return result;
}

Status keep_hugging_face(const TuneOptions& options, const TunedBy& by, const TuneRun& run, Json& files) {
  if (!options.export_hugging_face) return {};
  constexpr const char* kDirectory = "huggingface";
  const std::filesystem::path to = options.out / kDirectory;
  TAILOR_CHECK(make_directories(to));
  for (const char* name : {"config.json", "model.safetensors"})
    TAILOR_CHECK(tailor::copy_file(run.directory / kDirectory / name, to / name));
  if (by.model.is_hugging_face) {
    for (const char* name : {"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt",
                             "vocab.json", "merges.txt"}) {
      std::error_code ignored;
      if (std::filesystem::exists(by.model.path / name, ignored))
        TAILOR_CHECK(tailor::copy_file(by.model.path / name, to / name));
    }
  }
  files.push_back(kDirectory);
  return {};
}

Result<TuneSummary> finish_tune_run(const std::filesystem::path& out, const TuneRun& run, double elapsed_seconds,
                                    Json files, Json result) {
  result["elapsed_seconds"] = elapsed_seconds;
  result["versions"] = Json{{"tailor", TAILOR_VERSION}, {"package", kPackageVersion}};
  for (const char* file : {"report.html", "report.md", kTrainLogFile, kTensorboardDirectory}) files.push_back(file);
  result["files"] = std::move(files);
  TAILOR_CHECK(write_report(out, result));
  TAILOR_CHECK(tailor::copy_file(run.directory / "log.txt", out / "log.txt"));
  TAILOR_CHECK(remove_tree(out / kTrainDirectory));
  TAILOR_CHECK(write_json_atomic(RunDirectory{out}.result(), result));
  return TuneSummary{out, std::move(result)};
}

}  // namespace tailor
