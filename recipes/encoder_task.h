#pragma once
/// Steps that the recipes for encoders' tasks other than one label a text have in common: numbers, several labels,
/// tags.

#include <functional>
#include <string>
#include <vector>

#include "core/token_file.h"
#include "fit/package.h"
#include "fit/ready_model.h"
#include "fit/tuned_encoder.h"
#include "recipes/tune_steps.h"

namespace tailor {

/// choose_tuning(), for an encoder and a method that goes with any task.
Result<TunedBy> choose_for_task(const TuneOptions& options);

struct TrainedTask {
  ReadyModel base, served;  // what was trained on; what an untouched base is served as
  TuneRun run;
};
/// Makes the models ready, writes the rows that `tokenize` gives, and trains. `metric`: where options.metric is empty;
/// empty: the task's own.
using Tokenize = std::function<TokenFile(const Tokenizer&, const EncoderReading&)>;
Result<TrainedTask> train_task(const TuneOptions& options, const TunedBy& by, int threads, bool validates,
                               const std::string& metric, const Tokenize& tokenize, RunUi& ui,
                               const ProgressFn& progress, const CancelToken& cancel);

/// What the rows came from, for the record.
struct TaskData {
  std::vector<std::string> files, file_hashes;
  std::size_t train_rows = 0;
};
/// Makes RUN/package. `manifest` says how it answers; method, base, settings, columns and data are filled in.
Status package_task(const TuneOptions& options, const TunedBy& by, const TrainedTask& trained, const TaskData& data,
                    PackageManifest manifest);

}  // namespace tailor
