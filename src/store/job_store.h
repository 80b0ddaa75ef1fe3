#pragma once
/// Fine-tuning jobs as the OpenAI API knows them: states, events, checkpoints.

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/json.h"
#include "core/result.h"
#include "store/page.h"
#include "store/store_context.h"

namespace tailor {

/// validating_files -> queued -> running -> succeeded | failed; queued and running can be paused, a paused one goes
/// back to queued; all of these can be cancelled or fail. A running job goes back to queued when its process died.
enum class JobStatus : std::uint8_t { kValidatingFiles, kQueued, kRunning, kPaused, kSucceeded, kFailed, kCancelled };

std::string_view to_string(JobStatus status);  // the API's word: "validating_files"
std::optional<JobStatus> job_status(std::string_view word);
bool is_final(JobStatus status);
bool can_follow(JobStatus from, JobStatus to);

/// Of jobs whose request names none.
inline constexpr std::uint64_t kUsualJobSeed = 1;

struct JobError {
  std::string code, message, param;  // param may be empty
};

struct Job {
  std::string id;     // "ftjob-…"
  std::string owner;  // id of a key
  JobStatus status = JobStatus::kValidatingFiles;
  std::int64_t attempts = 0;  // how often it started to run
  std::int64_t created_at = 0;
  std::optional<std::int64_t> started_at, finished_at;  // first start; end
  Json request = Json::object();                        // as it was checked: "model", "training_file", …
  Json result = Json::object();                         // "fine_tuned_model", "result_files", "trained_tokens", …
  std::optional<JobError> error;
};

struct JobEvent {
  std::string id;                // "ftevent-…", increasing within a store
  std::int64_t created_at = 0;   // to be written: when it happened; 0: now
  std::string level = "info";    // "info" | "warn" | "error"
  std::string message;           // at most 8 KiB
  std::string type = "message";  // "message" | "metrics"
  Json data = Json::object();    // at most 64 KiB
};

struct JobCheckpoint {
  std::string id;  // "ftckpt_…"
  std::string job;
  std::int64_t created_at = 0;
  std::int64_t step = 0;
  std::string model;              // name under which it can be served
  Json metrics = Json::object();  // "train_loss", "valid_loss", …
};

struct NewJob {
  std::string owner;              // id of a key
  Json request = Json::object();  // as it was checked
  /// Its first events, given its id; they are written in the same moment. Empty: none.
  std::function<std::vector<JobEvent>(const std::string& id)> events = {};
  std::int64_t most_unfinished = 0;  // of its owner, this one included; 0: any number
};

/// What a change of state brings with it.
struct JobChange {
  Json result = Json::object();  // its fields are put over those that are there
  std::optional<JobError> error;
  std::optional<JobEvent> event;  // written in the same moment
};

/// n_epochs, batch_size and learning_rate_multiplier: a number where the request has one, under "method" or as it was
/// before that came, and else "auto".
Json asked_hyperparameters(const Json& request);
/// What it trains with.
std::uint64_t job_seed(const Job& job);
/// The API's objects "fine_tuning.job", ".event", ".checkpoint". The hyperparameters of a job are those that were asked
/// for until it trains, and then those that it trains with ("hyperparameters" of its result).
Json job_object(const Job& job);
Json job_event_object(const JobEvent& event);
Json job_checkpoint_object(const JobCheckpoint& checkpoint);

/// A finished job is never changed and no job is ever removed; the tables themselves refuse it.
/// Threads and processes: any; a change of state happens only if the job is still in the state it is changed from.
/// Errors: kNotFound; kInvalidArgument for what the job's state does not allow, naming the state.
class JobStore {
 public:
  explicit JobStore(StoreContext context) : context_(context) {}

  /// Its files are this session's to check. Nothing: its owner has as many unfinished ones as it may have.
  Result<std::optional<Job>> create(const NewJob& wanted);
  Result<Job> find(const std::string& id) const;
  Result<Page<Job>> list(const PageQuery& query) const;  // at most 100 a page

  /// From `from` to `to`; gives the job as it is then.
  Result<Job> move(const std::string& id, JobStatus from, JobStatus to, const JobChange& change = {});
  /// The same from whatever state it is in.
  Result<Job> move(const std::string& id, JobStatus to, const JobChange& change = {});
  /// Jobs whose files nobody has checked: those of this session and of dead ones, the oldest first.
  Result<std::vector<Job>> unchecked() const;
  /// Of the queued jobs that `here` holds for (empty: all) the one that has waited longest becomes running, in this
  /// session; nothing where there is none, and then nothing is written. One that another session ran and has not let go
  /// of waits. `here` is asked within a transaction and must not use the store; it is asked again of the job that
  /// starts, at last.
  Result<std::optional<Job>> start_next(const std::function<bool(const Job&)>& here = {});
  /// A job that this session ran and that was paused, or queued again, runs here no longer: others may start it.
  Status let_go(const std::string& id);
  /// Puts fields over those of the result of a job that is not finished: progress, an estimate of the end.
  Status update_result(const std::string& id, const Json& fields);
  /// Running jobs of sessions that are dead become queued, to be resumed from their checkpoints; gives their ids. Where
  /// there are none nothing is written.
  Result<std::vector<std::string>> recover();

  /// Of a job that is not finished; the last event comes with the change of state. Gives the event's id.
  Result<std::string> add_event(const std::string& id, const JobEvent& event);
  Result<Page<JobEvent>> events(const std::string& id, const PageQuery& query) const;  // at most 1000 a page
  /// A step that is there already (a resumed job) is written over and keeps its id.
  Result<JobCheckpoint> add_checkpoint(const std::string& id, std::int64_t step, const std::string& model,
                                       const Json& metrics);
  Result<Page<JobCheckpoint>> checkpoints(const std::string& id, const PageQuery& query) const;  // at most 100 a page

  /// The job that made the model of this name ("fine_tuned_model" of its result). kNotFound: none did, or the model was
  /// deleted.
  Result<Job> find_by_model(const std::string& model) const;
  /// From now on the model that the job made counts as deleted, which the audit log tells in the same moment
  /// ("model.delete"). Its files are the caller's. kNotFound: it made none, or that was deleted before.
  Status remove_model(const std::string& id, const std::string& actor);
  Result<bool> model_removed(const std::string& id) const;

 private:
  StoreContext context_;
};

}  // namespace tailor
