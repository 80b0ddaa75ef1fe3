#include "store/job_store.h"

#include <fmt/format.h>

#include <utility>

#include "store/audit_log.h"
#include "store/json_text.h"
#include "store/paging.h"
#include "store/random_id.h"

namespace tailor {
namespace {

constexpr std::string_view kSelect =
    "SELECT seq, id, owner, status, attempts, created_at, started_at, finished_at, request, result, error, session "
    "FROM jobs";
constexpr std::string_view kUnfinished = "status IN ('validating_files', 'queued', 'running', 'paused')";
constexpr std::string_view kEventPrefix = "ftevent-";
constexpr std::size_t kMaxMessage = std::size_t{8} << 10, kMaxData = std::size_t{64} << 10,
                      kMaxRequest = std::size_t{1} << 20;

/// The session that has the job, in a row of kSelect: it checks its files or runs it, or it ran it and has yet to stop.
std::string session_of(const Row& row) {
  return row.text(11);
}

Result<Job> job_of(const Row& row) {
  Job job;
  job.id = row.text(1);
  job.owner = row.text(2);
  const std::string word = row.text(3);
  const auto status = job_status(word);
  if (!status)
    return Error{ErrorCode::kCorruptData, fmt::format("job {} has the unknown status \"{}\"", job.id, word), ""};
  job.status = *status;
  job.attempts = row.integer(4);
  job.created_at = row.integer(5);
  job.started_at = row.optional_integer(6);
  job.finished_at = row.optional_integer(7);
  TAILOR_TRY(job.request, parse_json(row.text(8), "request of job " + job.id));
  TAILOR_TRY(job.result, parse_json(row.text(9), "result of job " + job.id));
  if (row.null(10)) return job;
  TAILOR_TRY(const Json error, parse_json(row.text(10), "error of job " + job.id));
  job.error = {error.value("code", ""), error.value("message", ""), error.value("param", "")};
  return job;
}

Result<Job> find_job(Transaction& transaction, const std::string& id) {
  Job job;
  TAILOR_TRY(const bool found,
             transaction.first(fmt::format("{} WHERE id = ?", kSelect), {id}, [&](const Row& row) -> Status {
               TAILOR_TRY(job, job_of(row));
               return {};
             }));
  if (!found) return Error{ErrorCode::kNotFound, fmt::format("there is no fine-tuning job {}", id), ""};
  return job;
}

/// A job in a state that still changes.
Result<Job> open_job(Transaction& transaction, const std::string& id) {
  TAILOR_TRY(Job job, find_job(transaction, id));
  if (is_final(job.status)) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("job {} is {} and does not change any more", id, to_string(job.status)), ""};
  }
  return job;
}

std::string event_id(std::int64_t seq) {
  return fmt::format("{}{:016d}", kEventPrefix, seq);
}

Result<std::string> insert_event(Transaction& transaction, const std::string& id, const JobEvent& event,
                                 std::int64_t now) {
  TAILOR_TRY(const std::string data, json_text(event.data, "data of a job's event", kMaxData));
  if (event.message.size() > kMaxMessage) {
    return Error{
        ErrorCode::kInvalidArgument,
        fmt::format("message of a job's event has {} bytes; the limit is {}", event.message.size(), kMaxMessage), ""};
  }
  if (event.level != "info" && event.level != "warn" && event.level != "error")
    return Error{ErrorCode::kInvalidArgument, fmt::format("\"{}\" is not the level of an event", event.level),
                 "one of info, warn, error"};
  if (event.type != "message" && event.type != "metrics")
    return Error{ErrorCode::kInvalidArgument, fmt::format("\"{}\" is not the type of an event", event.type),
                 "one of message, metrics"};
  TAILOR_CHECK(transaction.run(
      "INSERT INTO job_events(job, created_at, level, message, type, data) VALUES (?, ?, ?, ?, ?, ?)",
      {id, event.created_at > 0 ? event.created_at : now, event.level, event.message, event.type, data}));
  std::int64_t seq = 0;
  TAILOR_CHECK(transaction.first("SELECT last_insert_rowid()", {}, [&](const Row& row) -> Status {
    seq = row.integer(0);
    return {};
  }));
  return event_id(seq);
}

/// The caller has seen that `job` is in a state that `to` can follow, in this transaction.
Result<Job> apply(Transaction& transaction, const StoreContext& context, Job job, JobStatus to,
                  const JobChange& change) {
  const std::int64_t now = context.clock();
  if (change.event) TAILOR_CHECK(insert_event(transaction, job.id, *change.event, now));
  const JobStatus from = std::exchange(job.status, to);
  if (to == JobStatus::kRunning) {
    ++job.attempts;
    if (!job.started_at) job.started_at = now;
  }
  if (is_final(to)) job.finished_at = now;
  job.result.update(change.result);
  TAILOR_TRY(const std::string result, json_text(job.result, "result of a job", kMaxRequest));
  if (change.error) job.error = change.error;
  std::string error;
  if (job.error)
    error = dump_json({{"code", job.error->code}, {"message", job.error->message}, {"param", job.error->param}});
  TAILOR_TRY(const std::int64_t changed,
             transaction.run(
                 "UPDATE jobs SET status = ?, session = CASE WHEN ? THEN ? WHEN status = 'validating_files' THEN '' "
                 "ELSE session END, attempts = ?, started_at = ?, finished_at = ?, result = ?, error = nullif(?, '') "
                 "WHERE id = ? AND status = ?",
                 {to_string(to), to == JobStatus::kRunning, context.directory.session(), job.attempts, job.started_at,
                  job.finished_at, dump_json(job.result), error, job.id, to_string(from)}));
  if (changed != 1)
    return Error{ErrorCode::kInternal, fmt::format("job {} changed while it was being changed", job.id), ""};
  return job;
}

Result<Job> move_job(const StoreContext& context, const std::string& id, const JobStatus* from, JobStatus to,
                     const JobChange& change) {
  TAILOR_TRY(Transaction transaction, context.database.write());
  TAILOR_TRY(Job job, find_job(transaction, id));
  if (from != nullptr && job.status != *from) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("job {} is {}, not {}", id, to_string(job.status), to_string(*from)), ""};
  }
  if (!can_follow(job.status, to)) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("job {} is {}; it cannot become {}", id, to_string(job.status), to_string(to)), ""};
  }
  TAILOR_TRY(job, apply(transaction, context, std::move(job), to, change));
  TAILOR_CHECK(transaction.commit());
  return job;
}

Result<std::int64_t> count_unfinished(Transaction& transaction, const std::string& owner) {
  std::int64_t count = 0;
  TAILOR_CHECK(transaction.first(fmt::format("SELECT count(*) FROM jobs WHERE {} AND owner = ?", kUnfinished), {owner},
                                 [&](const Row& row) -> Status {
                                   count = row.integer(0);
                                   return {};
                                 }));
  return count;
}

Result<std::optional<Job>> first_queued(Transaction& transaction, const StoreDirectory& directory,
                                        const std::function<bool(const Job&)>& here) {
  for (std::int64_t seq = 0;;) {
    std::optional<Job> job;
    std::string session;
    TAILOR_CHECK(transaction.first(fmt::format("{} WHERE status = 'queued' AND seq > ? ORDER BY seq LIMIT 1", kSelect),
                                   {seq}, [&](const Row& row) -> Status {
                                     seq = row.integer(0);
                                     session = session_of(row);
                                     TAILOR_TRY(job, job_of(row));
                                     return {};
                                   }));
    if (!job) return job;
    const bool held = session != directory.session() && directory.session_alive(session);
    if (!held && (!here || here(*job))) return job;
  }
}

Result<std::vector<Job>> left_running(Transaction& transaction, const StoreDirectory& directory) {
  std::vector<Job> left;
  TAILOR_CHECK(transaction.each(fmt::format("{} WHERE status = 'running' ORDER BY seq", kSelect), {},
                                [&](const Row& row) -> Status {
                                  if (directory.session_alive(session_of(row))) return {};
                                  TAILOR_TRY(Job job, job_of(row));
                                  left.push_back(std::move(job));
                                  return {};
                                }));
  return left;
}

}  // namespace

Result<std::optional<Job>> JobStore::create(const NewJob& wanted) {
  TAILOR_TRY(const std::string text, json_text(wanted.request, "request of a job", kMaxRequest));
  if (!wanted.request.is_object())
    return Error{ErrorCode::kInvalidArgument, "request of a job is not a JSON object", ""};
  const std::string id = random_id("ftjob-", 24);
  const std::int64_t now = context_.clock();
  TAILOR_TRY(Transaction transaction, context_.database.write());
  if (wanted.most_unfinished > 0) {
    TAILOR_TRY(const std::int64_t unfinished, count_unfinished(transaction, wanted.owner));
    if (unfinished >= wanted.most_unfinished) return std::optional<Job>();
  }
  TAILOR_CHECK(transaction.run(
      "INSERT INTO jobs(id, owner, status, session, created_at, request) VALUES (?, ?, ?, ?, ?, ?)",
      {id, wanted.owner, to_string(JobStatus::kValidatingFiles), context_.directory.session(), now, text}));
  if (wanted.events) {
    for (const JobEvent& event : wanted.events(id)) TAILOR_CHECK(insert_event(transaction, id, event, now));
  }
  TAILOR_TRY(std::optional<Job> job, find_job(transaction, id));
  TAILOR_CHECK(transaction.commit());
  return job;
}

Result<Job> JobStore::find(const std::string& id) const {
  TAILOR_TRY(Transaction transaction, context_.database.read());
  return find_job(transaction, id);
}

Result<Page<Job>> JobStore::list(const PageQuery& query) const {
  TAILOR_TRY(Transaction transaction, context_.database.read());
  return read_page<Job>(transaction, {.select = kSelect, .table = "jobs"}, query, job_of);
}

Result<Job> JobStore::move(const std::string& id, JobStatus from, JobStatus to, const JobChange& change) {
  return move_job(context_, id, &from, to, change);
}

Result<Job> JobStore::move(const std::string& id, JobStatus to, const JobChange& change) {
  return move_job(context_, id, nullptr, to, change);
}

Result<std::vector<Job>> JobStore::unchecked() const {
  TAILOR_TRY(Transaction transaction, context_.database.read());
  std::vector<Job> jobs;
  TAILOR_CHECK(transaction.each(
      fmt::format("{} WHERE status = 'validating_files' ORDER BY seq", kSelect), {}, [&](const Row& row) -> Status {
        const std::string session = session_of(row);
        if (session != context_.directory.session() && context_.directory.session_alive(session)) return {};
        TAILOR_TRY(Job job, job_of(row));
        jobs.push_back(std::move(job));
        return {};
      }));
  return jobs;
}

Result<std::optional<Job>> JobStore::start_next(const std::function<bool(const Job&)>& here) {
  std::optional<Job> next;
  {
    TAILOR_TRY(Transaction transaction, context_.database.read());
    TAILOR_TRY(next, first_queued(transaction, context_.directory, here));
  }
  if (!next) return next;
  TAILOR_TRY(Transaction transaction, context_.database.write());
  // Another process may have been first.
  TAILOR_TRY(next, first_queued(transaction, context_.directory, here));
  if (!next) return next;
  const JobChange change{.result = {{"estimated_finish", nullptr}}};  // of an attempt before
  TAILOR_TRY(next, apply(transaction, context_, std::move(*next), JobStatus::kRunning, change));
  TAILOR_CHECK(transaction.commit());
  return next;
}

Status JobStore::let_go(const std::string& id) {
  TAILOR_TRY(Transaction transaction, context_.database.write());
  TAILOR_CHECK(
      transaction.run("UPDATE jobs SET session = '' WHERE id = ? AND session = ? AND status IN ('paused', 'queued')",
                      {id, context_.directory.session()}));
  return transaction.commit();
}

Status JobStore::update_result(const std::string& id, const Json& fields) {
  TAILOR_TRY(Transaction transaction, context_.database.write());
  TAILOR_TRY(Job job, open_job(transaction, id));
  job.result.update(fields);
  TAILOR_TRY(const std::string text, json_text(job.result, "result of a job", kMaxRequest));
  TAILOR_CHECK(transaction.run("UPDATE jobs SET result = ? WHERE id = ?", {text, id}));
  return transaction.commit();
}

Result<std::vector<std::string>> JobStore::recover() {
  {
    TAILOR_TRY(Transaction transaction, context_.database.read());
    TAILOR_TRY(const std::vector<Job> left, left_running(transaction, context_.directory));
    if (left.empty()) return std::vector<std::string>();
  }
  TAILOR_TRY(Transaction transaction, context_.database.write());
  TAILOR_TRY(std::vector<Job> left, left_running(transaction, context_.directory));
  std::vector<std::string> ids;
  for (Job& job : left) {
    ids.push_back(job.id);
    TAILOR_CHECK(apply(
        transaction, context_, std::move(job), JobStatus::kQueued,
        {.event =
             JobEvent{.level = "warn", .message = "The process that ran this job ended; the job will be resumed."}}));
  }
  TAILOR_CHECK(transaction.commit());
  return ids;
}

Result<std::string> JobStore::add_event(const std::string& id, const JobEvent& event) {
  TAILOR_TRY(Transaction transaction, context_.database.write());
  TAILOR_CHECK(open_job(transaction, id));
  TAILOR_TRY(std::string event_id, insert_event(transaction, id, event, context_.clock()));
  TAILOR_CHECK(transaction.commit());
  return event_id;
}

Result<Page<JobEvent>> JobStore::events(const std::string& id, const PageQuery& query) const {
  TAILOR_TRY(Transaction transaction, context_.database.read());
  TAILOR_CHECK(find_job(transaction, id));
  PageQuery by_seq = query;
  if (by_seq.after.starts_with(kEventPrefix)) by_seq.after.erase(0, kEventPrefix.size());
  return read_page<JobEvent>(transaction,
                             {.select = "SELECT seq, created_at, level, message, type, data FROM job_events",
                              .table = "job_events",
                              .filter = "job",
                              .value = id,
                              .most = 1000,
                              .owned = false,
                              .key = "seq"},
                             by_seq, [](const Row& row) -> Result<JobEvent> {
                               JobEvent event{.id = event_id(row.integer(0)),
                                              .created_at = row.integer(1),
                                              .level = row.text(2),
                                              .message = row.text(3),
                                              .type = row.text(4)};
                               TAILOR_TRY(event.data, parse_json(row.text(5), "data of event " + event.id));
                               return event;
                             });
}

Result<JobCheckpoint> JobStore::add_checkpoint(const std::string& id, std::int64_t step, const std::string& model,
                                               const Json& metrics) {
  JobCheckpoint checkpoint{.id = random_id("ftckpt_", 24),
                           .job = id,
                           .created_at = context_.clock(),
                           .step = step,
                           .model = model,
                           .metrics = metrics};
  TAILOR_TRY(const std::string text, json_text(metrics, "metrics of a checkpoint", kMaxData));
  TAILOR_TRY(Transaction transaction, context_.database.write());
  TAILOR_CHECK(open_job(transaction, id));
  TAILOR_CHECK(transaction.first(
      "INSERT INTO job_checkpoints(id, job, created_at, step, model, metrics) VALUES (?, ?, ?, ?, ?, ?) "
      "ON CONFLICT(job, step) DO UPDATE SET created_at = excluded.created_at, model = excluded.model, "
      "metrics = excluded.metrics RETURNING id",
      {checkpoint.id, id, checkpoint.created_at, step, model, text}, [&](const Row& row) -> Status {
        checkpoint.id = row.text(0);
        return {};
      }));
  TAILOR_CHECK(transaction.commit());
  return checkpoint;
}

Result<Page<JobCheckpoint>> JobStore::checkpoints(const std::string& id, const PageQuery& query) const {
  TAILOR_TRY(Transaction transaction, context_.database.read());
  TAILOR_CHECK(find_job(transaction, id));
  return read_page<JobCheckpoint>(
      transaction,
      {.select = "SELECT seq, id, job, created_at, step, model, metrics FROM job_checkpoints",
       .table = "job_checkpoints",
       .filter = "job",
       .value = id,
       .owned = false},
      query, [](const Row& row) -> Result<JobCheckpoint> {
        JobCheckpoint checkpoint{.id = row.text(1),
                                 .job = row.text(2),
                                 .created_at = row.integer(3),
                                 .step = row.integer(4),
                                 .model = row.text(5)};
        TAILOR_TRY(checkpoint.metrics, parse_json(row.text(6), "metrics of checkpoint " + checkpoint.id));
        return checkpoint;
      });
}

Result<Job> JobStore::find_by_model(const std::string& model) const {
  TAILOR_TRY(Transaction transaction, context_.database.read());
  Job job;
  TAILOR_TRY(const bool found,
             transaction.first(fmt::format("{} WHERE status = 'succeeded' AND json_extract(result, "
                                           "'$.fine_tuned_model') = ? AND id NOT IN (SELECT job FROM removed_models)",
                                           kSelect),
                               {model}, [&](const Row& row) -> Status {
                                 TAILOR_TRY(job, job_of(row));
                                 return {};
                               }));
  if (!found) return Error{ErrorCode::kNotFound, fmt::format("no fine-tuning job has the model {}", model), ""};
  return job;
}

Status JobStore::remove_model(const std::string& id, const std::string& actor) {
  TAILOR_TRY(Transaction transaction, context_.database.write());
  TAILOR_TRY(const Job job, find_job(transaction, id));
  const Error none{ErrorCode::kNotFound, fmt::format("job {} has no model", id), ""};
  const auto model = job.result.find("fine_tuned_model");
  if (job.status != JobStatus::kSucceeded || model == job.result.end() || !model->is_string()) return none;
  const std::int64_t now = context_.clock();
  TAILOR_TRY(const std::int64_t removed,
             transaction.run("INSERT OR IGNORE INTO removed_models VALUES (?, ?, ?)", {id, now, actor}));
  if (removed == 0) return none;
  TAILOR_CHECK(append_audit(transaction, now, {actor, "model.delete", model->get<std::string>(), {{"job", id}}}));
  return transaction.commit();
}

Result<bool> JobStore::model_removed(const std::string& id) const {
  TAILOR_TRY(Transaction transaction, context_.database.read());
  return transaction.first("SELECT 1 FROM removed_models WHERE job = ?", {id}, {});
}

}  // namespace tailor
