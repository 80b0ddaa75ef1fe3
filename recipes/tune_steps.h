#pragma once
/// Steps that tuning for labels and tuning for texts have in common.

#include <filesystem>
#include <functional>
#include <optional>
#include <string_view>

#include "core/cancel.h"
#include "core/json.h"
#include "core/progress.h"
#include "core/result.h"
#include "fit/options.h"
#include "fit/ready_model.h"
#include "fit/training_log.h"
#include "fit/tune_methods.h"
#include "fit/tune_process.h"
#include "model/gguf_file.h"
#include "recipes/fit_ui.h"
#include "recipes/tune.h"

namespace tailor {

inline constexpr std::string_view kTuneRunFormat = "tailor-tune-run";  // of run.json
inline constexpr int kTuneRunVersion = 1, kTuneResultVersion = 1;
inline constexpr const char* kTrainDirectory = "train";  // while the run goes on
inline constexpr const char* kTokensFile = "train/tokens.safetensors";

struct TunedBy {
  TuneMethod method;
  ModelInfo model;
};
/// The method by its name, and the model by its name or path; without one, the default model of `kind` (absent: of the
/// kind that suits the method). An error where the method does not tune the model's kind.
Result<TunedBy> choose_tuning(const TuneOptions& options, std::optional<ModelKind> kind = {});

/// Options that were given again when a run is resumed: what may change is put into `run` (run.json), anything else
/// that differs is an error that names both values.
Status take_changes(Json& run, const Json& given, const std::filesystem::path& directory);

/// A word that the method needs and that was not given is an error, and what does not go together.
Status check_tune_options(const TuneOptions& options);

/// How the model is made ready that serves, and that a decoder is trained on: with dtype bf16 its matrices are rounded.
ModelUse serving_use(const TuneOptions& options, const ModelInfo& model);

/// The settings that were given, with the tokens of --init-text by the tokenizer of `gguf`.
Result<Json> job_settings(const TuneOptions& options, const std::filesystem::path& gguf);

/// job.json without task, base and what is particular to the data.
Json tune_job(const TuneOptions& options, std::string_view method, bool validates);

/// Runs tailor-tune with its warnings and events shown, and kept in `log` where there is one. What `directory` holds of
/// a training that came to its end is taken as it is: an interrupted run does not train it again.
Result<TuneRun> run_training(Json job, const std::filesystem::path& directory, int threads, std::string_view stage,
                             RunUi& ui, const ProgressFn& progress, const CancelToken& cancel, TrainingLog* log);
/// The log of the run in `out`. `labels`: evaluations count right answers.
TrainingLog training_log(const std::filesystem::path& out, bool labels);

/// The beginning of result.json: what was tuned how, and the figures of the training.
Json training_figures(const TunedBy& by, const TuneOptions& options, int threads, const Json& training);

/// Where `options` ask for it, the tuned encoder as a Hugging Face directory beside the package: what tailor-tune
/// wrote, and the tokenizer's files where the base model was such a directory. Adds its name to `files`.
Status keep_hugging_face(const TuneOptions& options, const TunedBy& by, const TuneRun& run, Json& files);

/// What a package answers to the test rows, for result.json: with the weights as trained, and quantized (null: not
/// asked for).
struct ProvenPackage {
  Json served, quantized;
};
/// Asks the package of the run and, where it does not answer as the trainer did (the same label, tags or answer on 995
/// of 1,000 rows or words, a text's loss within 0.01 a token), has it made again with f32: in f16 a short or careful
/// training of a whole model changes weights by hardly more than the rounding does. Then quantizes it where `options`
/// say so, and asks again. `ask` gets the package's name in words; `make` makes the package with such matrices.
Result<ProvenPackage> prove_package(const TuneOptions& options, int threads, RunUi& ui,
                                    const std::function<Result<Json>(std::string_view name)>& ask,
                                    const std::function<Status(TensorType matrices)>& make);

/// Completes result.json with what every run states, writes the report, keeps `run`'s log, removes what only training
/// needed, and writes result.json last: its presence means the run is whole. `files`: what the run directory holds.
Result<TuneSummary> finish_tune_run(const std::filesystem::path& out, const TuneRun& run, double elapsed_seconds,
                                    Json files, Json result);

}  // namespace tailor
