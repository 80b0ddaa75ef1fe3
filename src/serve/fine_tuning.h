#pragma once
/// Fine-tuning jobs: what a client asked for, run one after the other, and served when it is done.

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <filesystem>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <thread>

#include "core/cancel.h"
#include "core/log.h"
#include "serve/background_seat.h"
#include "serve/served_model.h"
#include "store/store.h"

namespace tailor {

class JobNotes;  // fine_tuning_notes.h

/// One training, as a trainer wants it.
struct FineTuneSpec {
  std::filesystem::path base;                            // GGUF file of the model
  std::filesystem::path training_file, validation_file;  // the latter may be empty: a part of the former
  std::optional<std::int64_t> epochs, batch_size;
  std::optional<double> learning_rate_multiplier;
  std::uint64_t seed = 1;
  std::filesystem::path run;  // where it writes; what an interrupted training left there is gone on with
};

struct FineTuneProgress {
  std::function<void(const std::string& level, const std::string& message)> say;
  /// It begins to train with these: n_epochs, batch_size, learning_rate_multiplier, all of them numbers.
  std::function<void(const Json& hyperparameters)> begun;
  /// train_loss and train_mean_token_accuracy, or of an evaluation valid_loss and valid_mean_token_accuracy.
  std::function<void(std::int64_t step, const Json& metrics)> step;
  std::function<void(double seconds_left)> estimate;
};

struct FineTuned {
  std::filesystem::path package;
  std::int64_t trained_tokens = 0;
  std::int64_t step = 0;                  // after which the weights were what was kept
  Json metrics = Json::object();          // of that step, as FineTuneProgress::step has them
  Json hyperparameters = Json::object();  // as FineTuneProgress::begun has them
};

/// The border to the recipes, and to a test's double.
class FineTuner {
 public:
  virtual ~FineTuner() = default;
  /// Whether it can train here; the error says what is missing and what to do. Threads: any.
  virtual Status ready() const = 0;
  /// What a training file holds, in a sentence; errors name lines.
  virtual Result<std::string> check(const std::filesystem::path& file, const std::string& name) = 0;
  /// kCancelled: interrupted, with a checkpoint in `spec.run`.
  virtual Result<FineTuned> train(const FineTuneSpec& spec, const FineTuneProgress& progress,
                                  const CancelToken& cancel) = 0;
};

/// Threads: calls from any; one thread trains, another checks files, so that a bad one is told while others train, and
/// a third looks whether another server at the store paused or cancelled what trains here.
class FineTuning {
 public:
  /// Jobs that a server left running when it died go on; every `look_every` it looks for such ones, for those whose
  /// model has come to be served, and whether what trains here is still to be trained. `load` as for serve_package().
  FineTuning(Store& store, ModelRegistry& models, FineTuner& tuner, ModelLoadOptions load, Logger& log,
             std::chrono::milliseconds look_every = std::chrono::seconds(10));
  FineTuning(const FineTuning&) = delete;
  FineTuning& operator=(const FineTuning&) = delete;
  ~FineTuning();  // a job that runs is interrupted and goes on when a server starts again

  /// Of several servers at the store, one at a time trains: jobs begin while the seat, which outlives this, holds
  /// "jobs".
  void share(BackgroundSeat& seat) { seat_.store(&seat); }
  /// Serves what finished jobs made and nobody deleted, and removes what a killed server left of others. Once, at the
  /// start.
  void serve_finished();

  Status ready() const { return tuner_.ready(); }
  /// A request without a seed gets one here, so that the job's object tells what it trains with. Nothing: `owner` has
  /// `most_unfinished` jobs that have not ended (0: any number).
  Result<std::optional<Job>> create(const std::string& owner, const Json& request, std::int64_t most_unfinished = 0);
  /// Also of a job that another server at the store trains: that one hears of it within its `look_every`.
  /// Of what it has made on the disk nothing stays.
  Result<Job> cancel(const std::string& id);
  Result<Job> pause(const std::string& id);
  /// It begins when it has stopped where it ran.
  Result<Job> resume(const std::string& id);
  /// Deletes what a job made: it is served no longer (requests that run end well), and the job's run directory, with
  /// checkpoints and report, is removed. The job keeps its record. `actor`: for the audit log. kNotFound: as
  /// JobStore::remove_model().
  Status remove_model(const Job& job, const std::string& actor);
  JobStore& jobs() { return store_.jobs(); }

 private:
  /// A job that has begun to run here, and the file of its model.
  struct Begun {
    Job job;
    std::filesystem::path base;
  };

  bool wait_for(bool& due);  // or for the next look; false: the server ends
  bool wait_to_retry();      // false: the server ends
  void recover();
  void run_checks();
  bool check_all();
  bool validate(const Job& job);
  void run_watch();
  void look_at_running();

  void run_training();
  std::optional<Begun> begin_next();
  std::filesystem::path base_of(const Job& job) const;
  void tell_waiting(const Job& job);
  void train(const Begun& begun);
  bool find_data(const Job& job, FineTuneSpec& spec, const CancelToken& cancel);
  Result<std::filesystem::path> link_to(const Job& job, const std::string& field, const FileRecord& file) const;
  void write_all(JobNotes& notes);
  Status finish(const Job& job, const FineTuned& made, JobNotes& notes);
  Status tell_success(const Job& job, const FineTuned& made, const std::string& model, std::string& results);
  Result<std::string> serve(const Job& job, const std::filesystem::path& package);
  void serve_again(const Job& job);
  void fail(const Job& job, const std::string& code, const std::string& message, const std::string& param = {});
  bool was_stopped(const Job& job);
  void end_run(const Job& job);

  Result<Job> stop(const std::string& id, JobStatus to, const std::string& message);
  std::filesystem::path run_directory(const Job& job) const;
  std::filesystem::path data_directory(const Job& job) const;
  void remove_run(const Job& job);
  void remove_weights(const Job& job);
  void remove_left(const Job& ended);

  Store& store_;
  ModelRegistry& models_;
  FineTuner& tuner_;
  ModelLoadOptions load_;
  Logger& log_;
  const std::chrono::milliseconds look_every_;
  std::set<std::string> told_waiting_;  // ids; the trainer's thread alone
  std::atomic<BackgroundSeat*> seat_{nullptr};
  std::mutex mutex_;
  std::condition_variable changed_;
  std::string running_;  // the job's id
  std::shared_ptr<CancelToken> cancel_;
  bool stopping_ = false, work_ = true, unchecked_ = true;
  std::thread trainer_, checker_, watcher_;  // last
};

}  // namespace tailor
