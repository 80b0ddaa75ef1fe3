#include "serve/fine_tuning.h"

#include <fcntl.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <map>
#include <tuple>
#include <utility>

#include "core/hash.h"
#include "fit/tuned_decoder.h"
#include "serve/api_context.h"
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

std::string plain_number(const Json& metrics, const char* key) {
  const auto found = metrics.find(key);
  return found != metrics.end() && found->is_number() ? fmt::format("{:.6g}", found->get<double>()) : std::string();
}

/// Under all names that OpenAI has for them: every evaluation here is one of the whole validation part.
Json with_other_names(Json metrics) {
  constexpr std::pair<const char*, const char*> kSame[] = {
      {"train_accuracy", "train_mean_token_accuracy"},
      {"full_valid_loss", "valid_loss"},
      {"full_valid_mean_token_accuracy", "valid_mean_token_accuracy"}};
  for (const auto& [other, name] : kSame) {
    if (const auto found = metrics.find(name); found != metrics.end()) metrics[other] = Json(*found);
  }
  return metrics;
}

/// A line for each step. The first five columns are those of OpenAI's file, in its order.
std::string csv_of(const std::map<std::int64_t, Json>& steps) {
  constexpr std::array kColumns = {"train_loss",
                                   "train_accuracy",
                                   "valid_loss",
                                   "valid_mean_token_accuracy",
                                   "train_mean_token_accuracy",
                                   "full_valid_loss",
                                   "full_valid_mean_token_accuracy"};
  std::string csv = fmt::format("step,{}\n", fmt::join(kColumns, ","));
  for (const auto& [step, metrics] : steps) {
    csv += std::to_string(step);
    for (const char* column : kColumns) csv += "," + plain_number(metrics, column);
    csv += "\n";
  }
  return csv;
}

}  // namespace

FineTuning::FineTuning(Store& store, ModelRegistry& models, FineTuner& tuner, ModelLoadOptions load, Logger& log)
    : store_(store), models_(models), tuner_(tuner), load_(std::move(load)), log_(log) {
  if (const auto again = store_.jobs().recover(); again.has_value()) {
    for (const std::string& id : *again) log_.info(fmt::format("{}: goes on where it was interrupted", id));
  } else {
    log_.warning(to_string(again.error()));
  }
  trainer_ = std::thread([this] { run_training(); });
  checker_ = std::thread([this] { run_checks(); });
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
      if (job.status != JobStatus::kSucceeded) continue;
      const auto removed = store_.jobs().model_removed(job.id);
      if (!removed.has_value()) return log_.warning(to_string(removed.error()));
      if (*removed) {
        remove_run(job);  // a server that was killed may have left it
        continue;
      }
      if (const auto served = serve(job, run_directory(job) / "package"); !served.has_value())
        log_.warning(
            fmt::format("{} is not served: {}", text_of(job.result, "fine_tuned_model"), to_string(served.error())));
    }
    if (!page->has_more || page->data.empty()) return;
    query.after = page->data.back().id;
  }
}

Result<Job> FineTuning::create(const std::string& owner, const Json& request) {
  Json whole = request;
  if (whole.is_object() && !whole.contains("seed")) whole["seed"] = kUsualJobSeed;
  TAILOR_TRY(const Job job, store_.jobs().create(owner, whole));
  TAILOR_CHECK(store_.jobs().add_event(job.id, {.message = "Created fine-tuning job: " + job.id}));
  TAILOR_CHECK(
      store_.jobs().add_event(job.id, {.message = "Validating training file: " + text_of(request, "training_file")}));
  const std::lock_guard lock(mutex_);
  unchecked_ = true;
  changed_.notify_all();
  return job;
}

Result<Job> FineTuning::stop(const std::string& id, JobStatus to, const std::string& message) {
  const JobChange change{.event = JobEvent{.message = message}};
  TAILOR_TRY(const Job job, store_.jobs().move(id, to, change));
  const std::lock_guard lock(mutex_);
  if (running_ == id && cancel_) cancel_->cancel();
  work_ = true;
  changed_.notify_all();
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

Status FineTuning::remove_model(const Job& job, const std::string& actor) {
  TAILOR_CHECK(store_.jobs().remove_model(job.id, actor));
  models_.remove(text_of(job.result, "fine_tuned_model"));
  remove_run(job);
  return {};
}

void FineTuning::run_checks() {
  for (;;) {
    {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [&] { return stopping_ || unchecked_; });
      if (stopping_) return;
      unchecked_ = false;
    }
    bool all = false;
    try {
      all = check_all();
    } catch (const std::exception& e) {
      log_.warning(fmt::format("fine-tuning: {}", e.what()));
    }
    {
      const std::lock_guard lock(mutex_);
      work_ = true;
      changed_.notify_all();
    }
    if (all) continue;
    if (!wait_to_retry()) return;
    const std::lock_guard lock(mutex_);
    unchecked_ = true;
  }
}

/// False: the store did not answer for a moment.
bool FineTuning::check_all() {
  PageQuery query;
  query.limit = 100;
  bool all = true;
  for (bool more = true; more;) {
    const auto page = store_.jobs().list(query);
    if (!page.has_value()) {
      log_.warning(to_string(page.error()));
      return false;
    }
    for (const Job& job : page->data) {
      if (job.status != JobStatus::kValidatingFiles) continue;
      try {
        all = validate(job) && all;
      } catch (const std::exception& e) {  // of what a client sent: no reason to end
        log_.warning(fmt::format("{}: {}", job.id, e.what()));
        fail(job, "server_error", "the files could not be read");
      }
    }
    more = page->has_more && !page->data.empty();
    if (more) query.after = page->data.back().id;
  }
  return all;
}

void FineTuning::run_training() {
  for (;;) {
    {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [&] { return stopping_ || work_; });
      if (stopping_) return;
      work_ = false;
    }
    std::optional<Job> job;
    BackgroundSeat* const seat = seat_.load();
    try {
      const bool ours = seat == nullptr || seat->holds("jobs");
      auto next = ours ? store_.jobs().start_next() : Result<std::optional<Job>>(std::nullopt);
      if (!ours) {
        if (!wait_to_retry()) return;
      } else if (next.has_value()) {
        job = std::move(*next);
        if (!job) continue;
        train(*job);
      } else {
        log_.warning(to_string(next.error()));
        if (!wait_to_retry()) return;
      }
    } catch (const std::exception& e) {
      log_.warning(fmt::format("fine-tuning: {}", e.what()));
      if (job) fail(*job, "server_error", "the training failed inside the server");
    }
    const std::lock_guard lock(mutex_);
    running_.clear();
    cancel_ = nullptr;
    work_ = true;
  }
}

void FineTuning::fail(const Job& job, const std::string& code, const std::string& message, const std::string& param) {
  JobChange change;
  std::string told = message;  // a client learns nothing of where things lie
  const std::string root = store_.directory().root().string() + "/";
  for (std::size_t at = 0; (at = told.find(root, at)) != std::string::npos;) told.erase(at, root.size());
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

/// Its steps, also those before a restart. A step that was made again counts as it was the last time.
std::map<std::int64_t, Json> FineTuning::metrics_of(const Job& job) {
  std::map<std::int64_t, Json> steps;
  PageQuery query{.after = {}, .limit = 1000, .newest_first = false, .owner = {}};
  for (bool more = true; more;) {
    const auto page = store_.jobs().events(job.id, query);
    if (!page.has_value()) {
      log_.warning(fmt::format("{}: {}", job.id, to_string(page.error())));
      break;
    }
    for (const JobEvent& event : page->data) {
      if (event.type == "metrics" && event.data.is_object())
        steps[event.data.value("step", std::int64_t{0})].update(event.data);
    }
    more = page->has_more && !page->data.empty();
    if (more) query.after = page->data.back().id;
  }
  return steps;
}

/// False: the store did not take what was found.
bool FineTuning::validate(const Job& job) {
  const auto failed = [&](const char* field, const Error& error) {
    fail(job, "invalid_" + std::string(field), to_string(error), field);
    return true;
  };
  for (const char* field : {"training_file", "validation_file"}) {
    const std::string id = text_of(job.request, field);
    if (id.empty()) continue;
    const auto file = store_.files().find(id);
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

void FineTuning::train(const Job& job) {
  const auto cancel = std::make_shared<CancelToken>();
  {
    const std::lock_guard lock(mutex_);
    running_ = job.id;
    cancel_ = cancel;
    if (stopping_) cancel->cancel();
  }
  const auto now = store_.jobs().find(job.id);  // cancelled between its start and now
  if (now.has_value() && now->status != JobStatus::kRunning) return;
  keep_reserve(store_);
  FineTuneSpec spec;
  const std::string base = text_of(job.request, "model");
  const ServedModelPtr model = models_.find(base);
  if (base.empty() || !model || !model->text)
    return fail(job, "model_not_available", fmt::format("the model '{}' is not served any more", base), "model");
  spec.base = model->text->host()->gguf;
  // Readers tell a file's kind by its ending, which the store does not keep.
  const fs::path links = data_directory(job);
  std::error_code ignored;
  fs::create_directories(links, ignored);
  const auto path_of = [&](const char* field) -> fs::path {
    const auto file = store_.files().find(text_of(job.request, field));
    if (!file.has_value()) return {};
    fs::path ending = fs::path(file->filename).extension();
    if (ending.empty()) ending = ".jsonl";
    const fs::path link = links / (std::string(field) + ending.string());
    fs::remove(link, ignored);
    fs::create_symlink(store_.files().content(*file), link, ignored);
    return link;
  };
  spec.training_file = path_of("training_file");
  if (spec.training_file.empty())
    return fail(job, "invalid_training_file", "the training file was deleted", "training_file");
  spec.validation_file = path_of("validation_file");
  const Json asked = asked_hyperparameters(job.request);
  if (const Json& n = asked.at("n_epochs"); n.is_number()) spec.epochs = n.get<std::int64_t>();
  if (const Json& n = asked.at("batch_size"); n.is_number()) spec.batch_size = n.get<std::int64_t>();
  if (const Json& n = asked.at("learning_rate_multiplier"); n.is_number())
    spec.learning_rate_multiplier = n.get<double>();
  spec.seed = job_seed(job);
  spec.run = run_directory(job);

  const auto say = [&](const std::string& level, const std::string& message) {
    (void)store_.jobs().add_event(job.id, {.level = level, .message = message.substr(0, 8000)});
  };
  FineTuneProgress progress;
  progress.say = say;
  progress.begun = [&](const Json& hyperparameters) {
    (void)store_.jobs().update_result(job.id, {{"hyperparameters", hyperparameters}});
  };
  progress.step = [&](std::int64_t step, const Json& metrics) {
    Json data = with_other_names(metrics);
    data["step"] = step;
    const bool evaluated = metrics.contains("valid_loss");
    const std::string message =
        evaluated ? fmt::format("Step {}: validation loss={:.4f}", step, metrics["valid_loss"].get<double>())
                  : fmt::format("Step {}: training loss={:.4f}", step, metrics.value("train_loss", 0.0));
    (void)store_.jobs().add_event(job.id, {.message = message, .type = "metrics", .data = std::move(data)});
  };
  progress.estimate = [&](double left) {
    (void)store_.jobs().update_result(job.id, {{"estimated_finish", unix_seconds() + static_cast<std::int64_t>(left)}});
  };
  say("info", job.attempts > 1 ? "Fine-tuning job goes on" : "Fine-tuning job started");
  const Result<FineTuned> made = tuner_.train(spec, progress, *cancel);
  if (made.has_value()) {
    if (const Status finished = finish(job, *made); !finished.has_value()) {
      if (was_stopped(job)) return;
      log_.warning(fmt::format("{}: {}", job.id, to_string(finished.error())));
      const bool storage = finished.error().code == ErrorCode::kIo;
      if (storage) fs::remove_all(spec.run, ignored);
      fail(job, storage ? "storage_error" : "server_error",
           "the trained model could not be put in place: " + finished.error().message);
    }
    return;
  }
  if (made.error().code == ErrorCode::kCancelled && cancel->cancelled()) {
    was_stopped(job);
    return;  // paused, cancelled, or the server ends: then the next one recovers it
  }
  const bool storage = made.error().code == ErrorCode::kIo;
  if (storage) fs::remove_all(spec.run, ignored);  // nothing half stays, and the store has room again
  fail(job, storage ? "storage_error" : "training_failed", to_string(made.error()));
}

/// Whether it was paused or cancelled; of one that was cancelled nothing stays.
bool FineTuning::was_stopped(const Job& job) {
  const auto state = store_.jobs().find(job.id);
  if (!state.has_value() || state->status == JobStatus::kRunning) return false;
  std::error_code ignored;
  if (state->status == JobStatus::kCancelled) fs::remove_all(run_directory(job), ignored);
  return true;
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

Status FineTuning::finish(const Job& job, const FineTuned& made) {
  TAILOR_TRY(const std::string name, serve(job, made.package));
  std::string results;
  const auto tell = [&]() -> Status {
    std::map<std::int64_t, Json> steps = metrics_of(job);
    Json& kept = steps[made.step];
    if (kept.is_null()) kept = Json::object();
    kept.update(with_other_names(made.metrics));
    kept["step"] = made.step;
    TAILOR_TRY(const FileRecord file,
               store_.files().add("step_metrics.csv", "fine-tune-results", job.owner, csv_of(steps)));
    results = file.id;
    TAILOR_CHECK(store_.jobs().add_checkpoint(job.id, made.step, name, kept));
    JobChange change;
    change.result = {{"fine_tuned_model", name},
                     {"trained_tokens", made.trained_tokens},
                     {"hyperparameters", made.hyperparameters},
                     {"result_files", {results}},
                     {"estimated_finish", nullptr}};
    change.event = JobEvent{.message = "The job has successfully completed; the model is served as " + name};
    TAILOR_CHECK(store_.jobs().move(job.id, JobStatus::kRunning, JobStatus::kSucceeded, change));
    return {};
  };
  const Status told = tell();
  if (told.has_value()) return {};
  models_.remove(name);
  if (!results.empty()) std::ignore = store_.files().remove(results);
  return told;
}

}  // namespace tailor
