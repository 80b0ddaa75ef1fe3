#pragma once
/// Recipe: tune an encoder for a task other than one label a text (numbers, several labels, tags, spans), and make a
/// package of it. What the tasks have in common is here, what is particular to one in a class of its own.

#include <memory>
#include <string>
#include <string_view>

#include "core/cancel.h"
#include "core/json.h"
#include "core/progress.h"
#include "core/result.h"
#include "core/stopwatch.h"
#include "core/token_file.h"
#include "fit/package.h"
#include "fit/ready_model.h"
#include "fit/row_split.h"
#include "fit/tuned_encoder.h"
#include "recipes/run_directory.h"
#include "recipes/tune_steps.h"

namespace tailor {

class EncoderTask {
 public:
  /// `ui` and `cancel` outlive it.
  EncoderTask(TuneOptions options, RunUi& ui, const CancelToken& cancel);
  virtual ~EncoderTask() = default;
  EncoderTask(const EncoderTask&) = delete;
  EncoderTask& operator=(const EncoderTask&) = delete;

  Result<TuneSummary> start(const std::string& command_line);
  Result<TuneSummary> resume(const Json& run);  // run.json

 protected:
  struct Answered {
    Json figures;  // metrics, and how far the package agrees with the trainer
    double seconds = 0;
  };

  virtual Status read() = 0;  // the rows
  virtual const SplitData& data() const = 0;
  /// That the best checkpoint is kept by where the user says nothing; empty: the trainer's own.
  virtual std::string metric() const { return {}; }
  virtual TokenFile tokenize(const Tokenizer& tokenizer, const EncoderReading& reading) const = 0;
  /// How the package answers: serving, target, labels. Method, base, settings, columns and data are filled in.
  virtual Status describe(PackageManifest& manifest) = 0;
  virtual Status read_answers() = 0;                                  // the trainer's, of the test rows
  virtual Json prediction(std::size_t test_row) const = 0;            // a line of test_predictions.jsonl, from those
  virtual Result<Answered> ask(const PackageManifest& manifest) = 0;  // the package in package_directory()
  /// Adds "test" and "data", and what else result.json says of the task.
  virtual void report(Json& result) const = 0;

  const TuneOptions& options() const { return options_; }
  const TuneRun& trained() const { return run_; }
  const ReadyModel& base() const { return base_; }  // what was trained on
  const CancelToken& cancel() const { return cancel_; }
  std::filesystem::path package_directory() const { return RunDirectory{options_.out}.package(); }
  int threads() const;
  ProgressFn progress() const;

 private:
  Status begin();  // model, method, rows
  Status train();
  Status package(TensorType matrices = TensorType::kF16);
  Status prove();  // the test part, as trained and as served
  /// Asks the package for the test rows, and writes its figures into its manifest.
  Result<Json> ask_package(std::string_view what);
  Result<TuneSummary> go_on();

  const TuneOptions options_;
  RunUi& ui_;
  const CancelToken& cancel_;
  const Stopwatch watch_;
  TunedBy by_;
  ReadyModel base_, served_;  // served_: what an untouched base is served as
  TuneRun run_;
  ProvenPackage proven_;
};

}  // namespace tailor
