#include "store/batch_store.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <utility>

#include "store/json_text.h"
#include "store/names.h"
#include "store/paging.h"
#include "store/random_id.h"

namespace tailor {
namespace {

constexpr std::string_view kSelect =
    "SELECT seq, id, owner, status, endpoint, input_file, output_file, error_file, completion_window, created_at, "
    "expires_at, times, total, completed, failed, metadata, errors, model, usage FROM batches";

constexpr std::string_view kUnfinished = "status NOT IN ('completed', 'failed', 'expired', 'cancelled')";

constexpr std::int64_t kLeftToOthers = 60;  // seconds, of what was given back
constexpr std::int64_t kGivenBackCounts = 180;

constexpr std::array<std::pair<BatchStatus, std::string_view>, 8> kWords = {{
    {BatchStatus::kValidating, "validating"},
    {BatchStatus::kInProgress, "in_progress"},
    {BatchStatus::kFinalizing, "finalizing"},
    {BatchStatus::kCompleted, "completed"},
    {BatchStatus::kFailed, "failed"},
    {BatchStatus::kExpired, "expired"},
    {BatchStatus::kCancelling, "cancelling"},
    {BatchStatus::kCancelled, "cancelled"},
}};

Result<Batch> batch_of(const Row& row) {
  Batch batch{.id = row.text(1), .owner = row.text(2)};
  const std::string word = row.text(3);
  const auto status = batch_status(word);
  if (!status)
    return Error{ErrorCode::kCorruptData, fmt::format("batch {} has the unknown status \"{}\"", batch.id, word), ""};
  batch.status = *status;
  batch.endpoint = row.text(4);
  batch.input_file = row.text(5);
  batch.output_file = row.text(6);
  batch.error_file = row.text(7);
  batch.completion_window = row.text(8);
  batch.created_at = row.integer(9);
  batch.expires_at = row.integer(10);
  batch.total = row.integer(12);
  batch.completed = row.integer(13);
  batch.failed = row.integer(14);
  TAILOR_TRY(batch.times, parse_json(row.text(11), "times of batch " + batch.id));
  TAILOR_TRY(batch.metadata, parse_json(row.text(15), "metadata of batch " + batch.id));
  TAILOR_TRY(batch.errors, parse_json(row.text(16), "errors of batch " + batch.id));
  batch.model = row.text(17);
  TAILOR_TRY(batch.usage, parse_json(row.text(18), "usage of batch " + batch.id));
  return batch;
}

Result<Batch> find_batch(Transaction& transaction, const std::string& id) {
  Batch batch;
  TAILOR_TRY(const bool found,
             transaction.first(fmt::format("{} WHERE id = ?", kSelect), {id}, [&](const Row& row) -> Status {
               TAILOR_TRY(batch, batch_of(row));
               return {};
             }));
  if (!found) return Error{ErrorCode::kNotFound, fmt::format("there is no batch {}", id), ""};
  return batch;
}

Result<Batch> apply(Transaction& transaction, const StoreContext& context, Batch batch, BatchStatus to,
                    const BatchChange& change) {
  batch.status = to;
  batch.times[fmt::format("{}_at", to_string(to))] = context.clock();
  if (change.output_file) batch.output_file = *change.output_file;
  if (change.error_file) batch.error_file = *change.error_file;
  if (change.total) batch.total = *change.total;
  if (change.errors) batch.errors = *change.errors;
  if (change.model) batch.model = *change.model;
  TAILOR_TRY(const std::string errors, json_text(batch.errors, "errors of a batch", std::size_t{1} << 20));
  TAILOR_CHECK(transaction.run(
      "UPDATE batches SET status = ?, times = ?, output_file = ?, error_file = ?, total = ?, errors = ?, "
      "model = ?, session = iif(?, '', session) WHERE id = ?",
      {to_string(to), dump_json(batch.times), batch.output_file, batch.error_file, batch.total, errors, batch.model,
       is_final(to), batch.id}));
  if (is_final(to)) TAILOR_CHECK(transaction.run("DELETE FROM batches_given_back WHERE batch = ?", {batch.id}));
  return batch;
}

Result<std::int64_t> count_unfinished(Transaction& transaction, const std::string& owner) {
  std::int64_t count = 0;
  TAILOR_CHECK(transaction.first(fmt::format("SELECT count(*) FROM batches WHERE {} AND owner = ?", kUnfinished),
                                 {owner}, [&](const Row& row) -> Status {
                                   count = row.integer(0);
                                   return {};
                                 }));
  return count;
}

/// The first that is nobody's, of those that `which` (SQL of ours, as `join` is) leaves, in its order.
Result<std::optional<Batch>> take(const StoreContext& context, std::string_view join, std::string_view which,
                                  std::initializer_list<Param> params) {
  TAILOR_TRY(Transaction transaction, context.database.write());
  std::optional<Batch> next;
  TAILOR_CHECK(
      transaction.first(fmt::format("{} {} WHERE {} AND session = '' {} LIMIT 1", kSelect, join, kUnfinished, which),
                        params, [&](const Row& row) -> Status {
                          TAILOR_TRY(next, batch_of(row));
                          return {};
                        }));
  if (!next) return next;
  TAILOR_CHECK(transaction.run("UPDATE batches SET session = ? WHERE id = ?", {context.directory.session(), next->id}));
  TAILOR_CHECK(transaction.commit());
  return next;
}

/// Ids of unfinished batches that dead sessions worked on.
Result<std::vector<std::string>> find_orphans(Transaction& transaction, const StoreDirectory& directory) {
  std::vector<std::string> ids;
  TAILOR_CHECK(transaction.each(
      fmt::format("SELECT id, session FROM batches WHERE session <> '' AND {} ORDER BY seq", kUnfinished), {},
      [&](const Row& row) -> Status {
        const std::string session = row.text(1);
        if (session != directory.session() && !directory.session_alive(session)) ids.push_back(row.text(0));
        return {};
      }));
  return ids;
}

}  // namespace

std::string_view to_string(BatchStatus status) {
  for (const auto& [s, word] : kWords) {
    if (s == status) return word;
  }
  return "";
}

std::optional<BatchStatus> batch_status(std::string_view word) {
  for (const auto& [status, w] : kWords) {
    if (w == word) return status;
  }
  return std::nullopt;
}

bool is_final(BatchStatus status) {
  return status == BatchStatus::kCompleted || status == BatchStatus::kFailed || status == BatchStatus::kExpired ||
         status == BatchStatus::kCancelled;
}

bool can_follow(BatchStatus from, BatchStatus to) {
  if (is_final(from) || from == to) return false;
  if (from == BatchStatus::kCancelling) return to == BatchStatus::kCancelled || to == BatchStatus::kFailed;
  switch (to) {
    case BatchStatus::kValidating:
    case BatchStatus::kCancelled:
      return false;
    case BatchStatus::kInProgress:
      return from == BatchStatus::kValidating;
    case BatchStatus::kFinalizing:
      return from == BatchStatus::kInProgress;
    case BatchStatus::kCompleted:
      return from == BatchStatus::kFinalizing;
    case BatchStatus::kFailed:
    case BatchStatus::kExpired:
    case BatchStatus::kCancelling:
      return true;
  }
  return false;
}

Json batch_object(const Batch& batch) {
  const auto text = [](const std::string& value) { return value.empty() ? Json() : Json(value); };
  Json object = {{"id", batch.id},
                 {"object", "batch"},
                 {"endpoint", batch.endpoint},
                 {"model", text(batch.model)},
                 {"errors", batch.errors.empty() ? Json() : Json({{"object", "list"}, {"data", batch.errors}})},
                 {"input_file_id", batch.input_file},
                 {"completion_window", batch.completion_window},
                 {"status", to_string(batch.status)},
                 {"output_file_id", text(batch.output_file)},
                 {"error_file_id", text(batch.error_file)},
                 {"created_at", batch.created_at},
                 {"expires_at", batch.expires_at}};
  for (const char* name : {"in_progress_at", "finalizing_at", "completed_at", "failed_at", "expired_at",
                           "cancelling_at", "cancelled_at"}) {
    const auto found = batch.times.find(name);
    object[name] = found == batch.times.end() ? Json() : *found;
  }
  object["request_counts"] = {{"total", batch.total}, {"completed", batch.completed}, {"failed", batch.failed}};
  object["usage"] = batch.usage.empty() ? Json() : batch.usage;
  object["metadata"] = batch.metadata.empty() ? Json() : batch.metadata;
  return object;
}

Result<std::optional<Batch>> BatchStore::create(const NewBatch& wanted) {
  TAILOR_CHECK(check_label(wanted.endpoint, "endpoint"));
  TAILOR_CHECK(check_label(wanted.completion_window, "completion window"));
  TAILOR_TRY(const std::string text, json_text(wanted.metadata.is_null() ? Json::object() : wanted.metadata,
                                               "metadata of a batch", std::size_t{16} << 10));
  const std::string id = random_id("batch_", 24);
  TAILOR_TRY(Transaction transaction, context_.database.write());
  if (wanted.most_unfinished > 0) {
    TAILOR_TRY(const std::int64_t unfinished, count_unfinished(transaction, wanted.owner));
    if (unfinished >= wanted.most_unfinished) return std::optional<Batch>();
  }
  TAILOR_CHECK(transaction.run(
      "INSERT INTO batches(id, owner, status, endpoint, input_file, completion_window, created_at, expires_at, "
      "metadata) VALUES (?, ?, 'validating', ?, ?, ?, ?, ?, ?)",
      {id, wanted.owner, wanted.endpoint, wanted.input_file, wanted.completion_window, context_.clock(),
       wanted.expires_at, text}));
  TAILOR_TRY(std::optional<Batch> batch, find_batch(transaction, id));
  TAILOR_CHECK(transaction.commit());
  return batch;
}

Result<Batch> BatchStore::find(const std::string& id) const {
  TAILOR_TRY(Transaction transaction, context_.database.read());
  return find_batch(transaction, id);
}

Result<Page<Batch>> BatchStore::list(const PageQuery& query) const {
  TAILOR_TRY(Transaction transaction, context_.database.read());
  return read_page<Batch>(transaction, {.select = kSelect, .table = "batches"}, query, batch_of);
}

Result<std::optional<Batch>> BatchStore::take_next(bool of_idle_owner) {
  const std::string in_work = fmt::format(
      "LEFT JOIN (SELECT owner AS who, count(*) AS in_work FROM batches WHERE {} AND session <> '' GROUP BY owner) "
      "ON who = owner",
      kUnfinished);
  const std::string which = fmt::format(
      "{} AND id NOT IN (SELECT batch FROM batches_given_back WHERE session = ? AND at > ?) "
      "ORDER BY coalesce(in_work, 0), seq",
      of_idle_owner ? "AND in_work IS NULL" : "");
  return take(context_, in_work, which, {context_.directory.session(), context_.clock() - kLeftToOthers});
}

Result<std::optional<Batch>> BatchStore::take_ending(std::int64_t now) {
  return take(context_, "", "AND (expires_at <= ? OR status = 'cancelling') ORDER BY expires_at", {now});
}

Result<Batch> BatchStore::move(const std::string& id, BatchStatus to, const BatchChange& change) {
  TAILOR_TRY(Transaction transaction, context_.database.write());
  TAILOR_TRY(Batch batch, find_batch(transaction, id));
  if (!can_follow(batch.status, to)) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("batch {} is {}; it cannot become {}", id, to_string(batch.status), to_string(to)), ""};
  }
  TAILOR_TRY(batch, apply(transaction, context_, std::move(batch), to, change));
  TAILOR_CHECK(transaction.commit());
  return batch;
}

Result<Batch> BatchStore::set_progress(const std::string& id, const BatchProgress& progress) {
  TAILOR_TRY(const std::string usage, json_text(progress.usage, "usage of a batch", std::size_t{16} << 10));
  TAILOR_TRY(Transaction transaction, context_.database.write());
  TAILOR_TRY(Batch batch, find_batch(transaction, id));
  if (is_final(batch.status)) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("batch {} is {} and does not change any more", id, to_string(batch.status)), ""};
  }
  TAILOR_CHECK(transaction.run("UPDATE batches SET completed = ?, failed = ?, usage = ? WHERE id = ?",
                               {progress.completed, progress.failed, usage, id}));
  TAILOR_CHECK(transaction.commit());
  batch.completed = progress.completed;
  batch.failed = progress.failed;
  batch.usage = progress.usage;
  return batch;
}

Result<bool> BatchStore::give_back(const std::string& id) {
  TAILOR_TRY(std::vector<std::string> others, context_.directory.other_sessions());
  const std::int64_t now = context_.clock();
  TAILOR_TRY(Transaction transaction, context_.database.write());
  TAILOR_CHECK(transaction.each("SELECT session FROM batches_given_back WHERE batch = ? AND at > ?",
                                {id, now - kGivenBackCounts}, [&](const Row& row) -> Status {
                                  std::erase(others, row.text(0));
                                  return {};
                                }));
  if (others.empty()) return false;
  const std::string& own = context_.directory.session();
  TAILOR_CHECK(transaction.run("INSERT OR REPLACE INTO batches_given_back VALUES (?, ?, ?)", {id, own, now}));
  TAILOR_TRY(
      const std::int64_t given,
      transaction.run(fmt::format("UPDATE batches SET session = '' WHERE id = ? AND session = ? AND {}", kUnfinished),
                      {id, own}));
  if (given == 0) return Error{ErrorCode::kInvalidArgument, fmt::format("batch {} is not worked on here", id), ""};
  TAILOR_CHECK(transaction.commit());
  return true;
}

Result<std::vector<std::string>> BatchStore::recover() {
  {
    TAILOR_TRY(Transaction transaction, context_.database.read());
    TAILOR_TRY(std::vector<std::string> none, find_orphans(transaction, context_.directory));
    if (none.empty()) return none;
  }
  TAILOR_TRY(Transaction transaction, context_.database.write());
  TAILOR_TRY(std::vector<std::string> ids, find_orphans(transaction, context_.directory));
  for (const std::string& id : ids) {
    TAILOR_CHECK(transaction.run(
        "UPDATE batches SET session = '', status = iif(status = 'finalizing', 'in_progress', status) WHERE id = ?",
        {id}));
  }
  TAILOR_CHECK(transaction.commit());
  return ids;
}

}  // namespace tailor
