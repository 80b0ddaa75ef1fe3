#include "serve/fine_tuning.h"

#include <fcntl.h>
#include <fmt/format.h>

#include <tuple>
#include <utility>

#include "core/hash.h"
#include "fit/tuned_decoder.h"
#include "serve/api_context.h"
#include "serve/fine_tuning_figures.h"
#include "serve/fine_tuning_notes.h"
#include "store/descriptor.h"

namespace tailor {
namespace fs = std::filesystem;
namespace {

constexpr std::chrono::seconds kRetryAfter{2};  // when the disk had no room

/// Bytes that are kept back below runs/, so that on a full disk there is room to write down that it is full.
constexpr std::int64_t kReserve = std::int64_t{1} << 20;

fs::path reserve_of(const Store& store) {
  return store.directory().root() / "runs" / "reserve";
}

void keep_reserve(const Store& store) {
  const fs::path file = reserve_of(store);
  std::error_code ignored;
  if (fs::exists(file, ignored)) return;
  fs::create_directories(file.parent_path(), ignored);
  const Descriptor fd(::open(file.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
  if (fd.get() >= 0 && ::posix_fallocate(fd.get(), 0, kReserve) != 0) fs::remove(file, ignored);
}

std::string text_of(const Json& json, const char* key) {
  const auto found = json.find(key);
  return found != json.end() && found->is_string() ? found->get<std::string>() : std::string();
}

}  // namespace

FineTuning::FineTuning(Store& store, ModelRegistry& models, FineTuner& tuner, ModelLoadOptions load, Logger& log,
                       std::chrono::milliseconds look_every)
    : store_(store), models_(models), tuner_(tuner), load_(std::move(load)), log_(log), look_every_(look_every) {
  recover();
  trainer_ = std::thread([this] { run_training(); });
  checker_ = std::thread([this] { run_checks(); });
  watcher_ = std::thread([this] { run_watch(); });
}

FineTuning::~FineTuning() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
    if (cancel_) cancel_->cancel();
    changed_.notify_all();
  }
  trainer_.join();
  checker_.join();
  watcher_.join();
}

fs::path FineTuning::run_directory(const Job& job) const {
  return store_.directory().root() / "runs" / job.id;
}

fs::path FineTuning::data_directory(const Job& job) const {
  return store_.directory().root() / "runs" / (job.id + "-data");
}

void FineTuning::serve_finished() {
  PageQuery query;
  query.limit = 100;
  query.newest_first = false;
  for (;;) {
    const auto page = store_.jobs().list(query);
    if (!page.has_value()) return log_.warning(to_string(page.error()));
    for (const Job& job : page->data) {
      if (job.status == JobStatus::kSucceeded)
        serve_again(job);
      else
        remove_left(job);
    }
    if (!page->has_more || page->data.empty()) return;
    query.after = page->data.back().id;
  }
}

void FineTuning::serve_again(const Job& job) {
  const auto removed = store_.jobs().model_removed(job.id);
  if (!removed.has_value()) return log_.warning(fmt::format("{}: {}", job.id, to_string(removed.error())));
  if (*removed) return remove_run(job);  // a server that was killed may have left it
  if (const auto served = serve(job, run_directory(job) / "package"); !served.has_value())
    log_.warning(
        fmt::format("{} is not served: {}", text_of(job.result, "fine_tuned_model"), to_string(served.error())));
}

Result<std::optional<Job>> FineTuning::create(const std::string& owner, const Json& request,
                                              std::int64_t most_unfinished) {
  NewJob wanted{.owner = owner, .request = request, .most_unfinished = most_unfinished};
  if (request.is_object() && !request.contains("seed")) wanted.request["seed"] = kUsualJobSeed;
  wanted.events = [&](const std::string& id) -> std::vector<JobEvent> {
    return {{.message = "Created fine-tuning job: " + id},
            {.message = "Validating training file: " + text_of(request, "training_file")}};
  };
  TAILOR_TRY(std::optional<Job> job, store_.jobs().create(wanted));
  if (!job) return job;
  const std::lock_guard lock(mutex_);
  unchecked_ = true;
  changed_.notify_all();
  return job;
}

/// What a run that is under way leaves is removed where it ends: perhaps by another server, which hears of it in its
/// look_at_running().
Result<Job> FineTuning::stop(const std::string& id, JobStatus to, const std::string& message) {
  TAILOR_TRY(const Job before, store_.jobs().find(id));
  const JobChange change{.event = JobEvent{.message = message}};
  TAILOR_TRY(const Job job, store_.jobs().move(id, to, change));
  bool runs = before.status == JobStatus::kRunning;
  {
    const std::lock_guard lock(mutex_);
    runs = runs || running_ == id;
    if (running_ == id && cancel_) cancel_->cancel();
    work_ = true;
    changed_.notify_all();
  }
  if (!runs) remove_left(job);
  return job;
}

Result<Job> FineTuning::cancel(const std::string& id) {
  return stop(id, JobStatus::kCancelled, "Fine-tuning job cancelled");
}
Result<Job> FineTuning::pause(const std::string& id) {
  return stop(id, JobStatus::kPaused, "Fine-tuning job paused");
}
Result<Job> FineTuning::resume(const std::string& id) {
  const JobChange change{.event = JobEvent{.message = "Fine-tuning job resumed"}};
  TAILOR_TRY(const Job job, store_.jobs().move(id, JobStatus::kPaused, JobStatus::kQueued, change));
  const std::lock_guard lock(mutex_);
  work_ = true;
  changed_.notify_all();
  return job;
}

bool FineTuning::wait_for(bool& due) {
  std::unique_lock lock(mutex_);
  changed_.wait_for(lock, look_every_, [&] { return stopping_ || due; });
  due = false;
  return !stopping_;
}

bool FineTuning::wait_to_retry() {
  std::unique_lock lock(mutex_);
  return !changed_.wait_for(lock, kRetryAfter, [&] { return stopping_; });
}

void FineTuning::remove_run(const Job& job) {
  for (const fs::path& directory : {run_directory(job), data_directory(job)}) {
    std::error_code error;
    fs::remove_all(directory, error);
    if (error) log_.warning(fmt::format("{}: cannot be removed: {}", directory.string(), error.message()));
  }
}

/// Keeps its report and its logs.
void FineTuning::remove_weights(const Job& job) {
  std::error_code error;
  std::vector<fs::path> weights;
  for (fs::recursive_directory_iterator at(run_directory(job), error), end; !error && at != end; at.increment(error)) {
    const fs::path ending = at->path().extension();
    if (ending == ".safetensors" || ending == ".gguf") weights.push_back(at->path());
  }
  for (const fs::path& file : weights) {
    fs::remove(file, error);
    if (error) log_.warning(fmt::format("{}: cannot be removed: {}", file.string(), error.message()));
  }
  fs::remove_all(data_directory(job), error);
}

/// What nobody needs any more of a job that runs nowhere.
void FineTuning::remove_left(const Job& ended) {
  if (ended.status == JobStatus::kCancelled) remove_run(ended);
  if (ended.status == JobStatus::kFailed) remove_weights(ended);
}

Status FineTuning::remove_model(const Job& job, const std::string& actor) {
  TAILOR_CHECK(store_.jobs().remove_model(job.id, actor));
  models_.remove(text_of(job.result, "fine_tuned_model"));
  remove_run(job);
  return {};
}

/// Jobs of servers that have died become queued.
void FineTuning::recover() {
  const auto again = store_.jobs().recover();
  if (!again.has_value()) return log_.warning(to_string(again.error()));
  for (const std::string& id : *again) log_.info(fmt::format("{}: goes on where it was interrupted", id));
}

void FineTuning::run_checks() {
  while (wait_for(unchecked_)) {
    bool all = false;
    try {
      all = check_all();
    } catch (const std::exception& e) {
      log_.warning(fmt::format("fine-tuning: {}", e.what()));
    }
    if (!all && !wait_to_retry()) return;
    const std::lock_guard lock(mutex_);
    unchecked_ = unchecked_ || !all;
  }
}

/// False: the store did not answer for a moment.
bool FineTuning::check_all() {
  const auto jobs = store_.jobs().unchecked();
  if (!jobs.has_value()) {
    log_.warning(to_string(jobs.error()));
    return false;
  }
  bool all = true;
  for (const Job& job : *jobs) {
    try {
      all = validate(job) && all;
    } catch (const std::exception& e) {  // of what a client sent: no reason to end
      log_.warning(fmt::format("{}: {}", job.id, e.what()));
      fail(job, "server_error", "the files could not be read");
    }
  }
  if (jobs->empty()) return true;
  const std::lock_guard lock(mutex_);
  work_ = true;
  changed_.notify_all();
  return all;
}

void FineTuning::run_watch() {
  for (bool never = false; wait_for(never);) {
    try {
      look_at_running();
    } catch (const std::exception& e) {
      log_.warning(fmt::format("fine-tuning: {}", e.what()));
    }
  }
}

/// Another server at the store may have paused or cancelled it.
void FineTuning::look_at_running() {
  std::string id;
  std::shared_ptr<CancelToken> cancel;  // of this attempt: the next one is not meant
  {
    const std::lock_guard lock(mutex_);
    id = running_;
    cancel = cancel_;
  }
  if (!cancel || cancel->cancelled()) return;
  const auto job = store_.jobs().find(id);
  if (!job.has_value() || job->status == JobStatus::kRunning) return;
  log_.info(fmt::format("{}: it is {}, so its training stops", id, to_string(job->status)));
  cancel->cancel();
}

void FineTuning::run_training() {
  while (wait_for(work_)) {
    std::optional<Begun> begun;
    try {
      begun = begin_next();
      if (begun) train(*begun);
    } catch (const std::exception& e) {
      log_.warning(fmt::format("fine-tuning: {}", e.what()));
      if (begun) fail(begun->job, "server_error", "the training failed inside the server");
    }
    if (begun) end_run(begun->job);
  }
}

/// Nothing: none waits that could be trained here, or it is not to be known now.
std::optional<FineTuning::Begun> FineTuning::begin_next() {
  BackgroundSeat* const seat = seat_.load();
  if (seat == nullptr || seat->holds("jobs")) {
    recover();
    std::vector<Job> waiting;
    fs::path base;
    const auto next = store_.jobs().start_next([&](const Job& job) {
      base = base_of(job);
      if (base.empty()) waiting.push_back(job);
      return !base.empty();
    });
    for (const Job& job : waiting) tell_waiting(job);
    if (next.has_value() && !*next) return std::nullopt;
    if (next.has_value()) return Begun{**next, base};
    log_.warning(to_string(next.error()));
  }
  if (!wait_to_retry()) return std::nullopt;
  const std::lock_guard lock(mutex_);
  work_ = true;
  return std::nullopt;
}

/// The file of the model that it trains; empty: this server does not serve that.
fs::path FineTuning::base_of(const Job& job) const {
  const std::string name = text_of(job.request, "model");
  const ServedModelPtr model = name.empty() ? nullptr : models_.find(name);
  return model && model->text && model->parent.empty() ? model->text->host()->gguf : fs::path();
}

/// Once. Another server at the store may have its model.
void FineTuning::tell_waiting(const Job& job) {
  if (told_waiting_.contains(job.id)) return;
  const std::string message = fmt::format("This server does not serve the model '{}': the job waits for one that does",
                                          text_of(job.request, "model"));
  log_.warning(fmt::format("{}: {}", job.id, message));
  if (store_.jobs().add_event(job.id, {.level = "warn", .message = message}).has_value()) told_waiting_.insert(job.id);
}

void FineTuning::fail(const Job& job, const std::string& code, const std::string& message, const std::string& param) {
  JobChange change;
  const std::string told = without_directories(message);  // a client learns nothing of where things lie
  if (told != message) log_.warning(fmt::format("{}: {}", job.id, message));
  change.error = JobError{code, told, param};
  change.event = JobEvent{.level = "error", .message = told.substr(0, 8000)};
  for (bool warned = false;;) {
    const auto moved = store_.jobs().move(job.id, JobStatus::kFailed, change);
    if (moved.has_value()) return;
    if (!std::exchange(warned, true)) log_.warning(fmt::format("{}: {}", job.id, to_string(moved.error())));
    // Cancelled meanwhile, say.
    if (moved.error().code == ErrorCode::kInvalidArgument || moved.error().code == ErrorCode::kNotFound) return;
    // A full disk has no room for this either; where the reserve is gone it is told as soon as there is some.
    std::error_code ignored;
    if (fs::remove(reserve_of(store_), ignored)) continue;
    if (!wait_to_retry()) return;
  }
}

/// False: the store did not answer, or did not take what was found.
bool FineTuning::validate(const Job& job) {
  const auto failed = [&](const char* field, const Error& error) {
    fail(job, "invalid_" + std::string(field), to_string(error), field);
    return true;
  };
  for (const char* field : {"training_file", "validation_file"}) {
    const std::string id = text_of(job.request, field);
    if (id.empty()) continue;
    const auto file = store_.files().find(id);
    if (!file.has_value() && file.error().code != ErrorCode::kNotFound) {
      log_.warning(fmt::format("{}: {}", job.id, to_string(file.error())));
      return false;
    }
    if (!file.has_value()) return failed(field, file.error());
    const auto said = tuner_.check(store_.files().content(*file), file->filename);
    if (!said.has_value()) return failed(field, said.error());
    if (const auto told = store_.jobs().add_event(job.id, {.message = fmt::format("{}: {}", file->filename, *said)});
        !told.has_value())
      log_.warning(to_string(told.error()));
  }
  JobChange change;
  change.event = JobEvent{.message = "Files validated, moving job to queued state"};
  const auto moved = store_.jobs().move(job.id, JobStatus::kValidatingFiles, JobStatus::kQueued, change);
  // Cancelled meanwhile: it stays so.
  if (moved.has_value() || moved.error().code == ErrorCode::kInvalidArgument) return true;
  log_.warning(fmt::format("{}: {}", job.id, to_string(moved.error())));
  return false;
}

void FineTuning::train(const Begun& begun) {
  const Job& job = begun.job;
  const auto cancel = std::make_shared<CancelToken>();
  {
    const std::lock_guard lock(mutex_);
    running_ = job.id;
    cancel_ = cancel;
    if (stopping_) cancel->cancel();
  }
  if (was_stopped(job)) return;  // between its start and now
  keep_reserve(store_);
  FineTuneSpec spec;
  spec.base = begun.base;
  if (!find_data(job, spec, *cancel)) return;
  const Json asked = asked_hyperparameters(job.request);
  if (const Json& n = asked.at("n_epochs"); n.is_number()) spec.epochs = n.get<std::int64_t>();
  if (const Json& n = asked.at("batch_size"); n.is_number()) spec.batch_size = n.get<std::int64_t>();
  if (const Json& n = asked.at("learning_rate_multiplier"); n.is_number())
    spec.learning_rate_multiplier = n.get<double>();
  spec.seed = job_seed(job);
  spec.run = run_directory(job);

  JobNotes notes(store_.jobs(), job.id, log_);
  const FineTuneProgress progress = progress_into(notes);
  progress.say("info", job.attempts > 1 ? "Fine-tuning job goes on" : "Fine-tuning job started");
  const Result<FineTuned> made = tuner_.train(spec, progress, *cancel);
  if (!made.has_value()) write_all(notes);
  if (!made.has_value() && made.error().code == ErrorCode::kCancelled && cancel->cancelled())
    return;  // paused, cancelled, or the server ends: then the next one recovers it
  const Status done = made.has_value() ? finish(job, *made, notes) : Status(made.error());
  if (done.has_value() || was_stopped(job)) return;
  const bool storage = done.error().code == ErrorCode::kIo;
  std::error_code ignored;
  if (storage) fs::remove_all(spec.run, ignored);  // nothing half stays, and the store has room again
  if (storage) write_all(notes);
  if (!made.has_value()) return fail(job, storage ? "storage_error" : "training_failed", to_string(done.error()));
  log_.warning(fmt::format("{}: {}", job.id, to_string(done.error())));
  fail(job, storage ? "storage_error" : "server_error",
       "the trained model could not be put in place: " + done.error().message);
}

/// False: the job has failed, or need not train any more.
bool FineTuning::find_data(const Job& job, FineTuneSpec& spec, const CancelToken& cancel) {
  const std::pair<const char*, fs::path*> parts[] = {{"training", &spec.training_file},
                                                     {"validation", &spec.validation_file}};
  for (const auto& [part, path] : parts) {
    const std::string field = fmt::format("{}_file", part), id = text_of(job.request, field.c_str());
    if (id.empty()) continue;
    auto file = store_.files().find(id);
    for (bool warned = false; !file.has_value() && file.error().code != ErrorCode::kNotFound;) {
      if (!std::exchange(warned, true)) log_.warning(fmt::format("{}: {}", job.id, to_string(file.error())));
      if (!wait_to_retry() || cancel.cancelled()) return false;
      file = store_.files().find(id);
    }
    if (!file.has_value()) {
      fail(job, "invalid_" + field, fmt::format("the {} file was deleted", part), field);
      return false;
    }
    const auto link = link_to(job, field, *file);
    if (!link.has_value()) {
      fail(job, "storage_error", to_string(link.error()));
      return false;
    }
    *path = *link;
  }
  return true;
}

/// Readers tell a file's kind by its ending, which the store does not keep.
Result<fs::path> FineTuning::link_to(const Job& job, const std::string& field, const FileRecord& file) const {
  fs::path ending = fs::path(file.filename).extension();
  if (ending.empty()) ending = ".jsonl";
  const fs::path link = data_directory(job) / (field + ending.string());
  std::error_code error;
  fs::create_directories(link.parent_path(), error);
  if (!error) fs::remove(link, error);
  if (!error) fs::create_symlink(store_.files().content(file), link, error);
  if (error) return Error{ErrorCode::kIo, fmt::format("cannot make {}: {}", link.string(), error.message()), ""};
  return link;
}

/// Waits for a store that is held, so that nothing that was told is missing; not for room on the disk.
void FineTuning::write_all(JobNotes& notes) {
  for (;;) {
    const Status written = notes.write();
    if (written.has_value() || written.error().code != ErrorCode::kUnavailable || !wait_to_retry()) return;
  }
}

/// Whether it was paused or cancelled.
bool FineTuning::was_stopped(const Job& job) {
  const auto state = store_.jobs().find(job.id);
  return state.has_value() && state->status != JobStatus::kRunning;
}

/// After it ran here, whatever became of it. What cancels it from now on removes what it left, and if it was paused any
/// server may go on with it.
void FineTuning::end_run(const Job& job) {
  {
    const std::lock_guard lock(mutex_);
    running_.clear();
    cancel_ = nullptr;
    work_ = true;
  }
  for (bool warned = false;;) {
    const auto now = store_.jobs().find(job.id);
    Status done = now.has_value() ? Status() : Status(now.error());
    if (now.has_value()) remove_left(*now);
    if (now.has_value() && !is_final(now->status)) done = store_.jobs().let_go(job.id);
    if (done.has_value()) return;
    if (!std::exchange(warned, true)) log_.warning(fmt::format("{}: {}", job.id, to_string(done.error())));
    if (!may_pass(done.error()) || !wait_to_retry()) return;
  }
}

Result<std::string> FineTuning::serve(const Job& job, const fs::path& package) {
  const std::string suffix = text_of(job.request, "suffix"), base = text_of(job.request, "model");
  const std::string name = fmt::format("ft:{}:tailor:{}:{}", base, suffix, job.id.substr(job.id.size() - 8));
  const ServedModelPtr parent = models_.find(base);
  const ModelRegistry::Loading shown(models_);
  std::error_code ignored;
  std::unique_ptr<ServedModel> model;
  if (parent && parent->text && fs::exists(package / "adapter" / "adapter.gguf", ignored)) {
    TAILOR_TRY(model, serve_adapter(*parent, package, name));
  } else {
    TAILOR_TRY(model, serve_package(package, name, load_));
    model->parent = base;
  }
  model->owner = job.owner;
  models_.put(std::move(model));
  return name;
}

/// Waits for a store that is held. No error: the job has succeeded, or the server ends before the store takes that;
/// then the next one recovers the job.
Status FineTuning::finish(const Job& job, const FineTuned& made, JobNotes& notes) {
  TAILOR_TRY(const std::string model, serve(job, made.package));
  std::string results;
  for (bool warned = false;;) {
    Status told = notes.write();
    if (told.has_value()) told = tell_success(job, made, model, results);
    if (told.has_value()) return {};
    const bool held = told.error().code == ErrorCode::kUnavailable;
    if (held && !std::exchange(warned, true)) log_.warning(fmt::format("{}: {}", job.id, to_string(told.error())));
    if (held && wait_to_retry()) continue;
    models_.remove(model);
    if (!results.empty()) std::ignore = store_.files().remove(results);
    return held ? Status() : told;
  }
}

/// `results`: the id of the file of its steps, which is made unless an earlier try has.
Status FineTuning::tell_success(const Job& job, const FineTuned& made, const std::string& model, std::string& results) {
  TAILOR_TRY(JobFigures steps, figures_of(store_.jobs(), job, log_));
  Json& kept = steps[made.step];
  if (kept.is_null()) kept = Json::object();
  kept.update(with_other_names(made.metrics));
  kept["step"] = made.step;
  if (results.empty()) {
    TAILOR_TRY(const FileRecord file,
               store_.files().add("step_metrics.csv", "fine-tune-results", job.owner, csv_of(steps)));
    results = file.id;
  }
  TAILOR_CHECK(store_.jobs().add_checkpoint(job.id, made.step, model, kept));
  JobChange change;
  change.result = {{"fine_tuned_model", model},
                   {"trained_tokens", made.trained_tokens},
                   {"hyperparameters", made.hyperparameters},
                   {"result_files", {results}}};
  change.event = JobEvent{.message = "The job has successfully completed; the model is served as " + model};
  TAILOR_CHECK(store_.jobs().move(job.id, JobStatus::kRunning, JobStatus::kSucceeded, change));
  return {};
}

}  // namespace tailor
