#pragma once
/// Batches as the OpenAI API knows them: a file of requests, worked off in the background.

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/json.h"
#include "core/result.h"
#include "store/page.h"
#include "store/store_context.h"

namespace tailor {

/// validating -> in_progress -> finalizing -> completed; the first three can fail, expire or become cancelling, which
/// becomes cancelled.
enum class BatchStatus : std::uint8_t {
  kValidating,
  kInProgress,
  kFinalizing,
  kCompleted,
  kFailed,
  kExpired,
  kCancelling,
  kCancelled
};

std::string_view to_string(BatchStatus status);  // the API's word: "in_progress"
std::optional<BatchStatus> batch_status(std::string_view word);
bool is_final(BatchStatus status);
bool can_follow(BatchStatus from, BatchStatus to);

struct Batch {
  std::string id;     // "batch_…"
  std::string owner;  // id of a key
  BatchStatus status = BatchStatus::kValidating;
  std::string endpoint, input_file, output_file, error_file, completion_window;
  std::int64_t created_at = 0, expires_at = 0;
  Json times = Json::object();                        // "in_progress_at": when, …
  std::int64_t total = 0, completed = 0, failed = 0;  // requests; those that were never answered are neither
  std::string model;                                  // that all requests name; empty: several, or not known yet
  Json usage = Json::object();                        // "input_tokens", …; empty: nothing was counted
  Json metadata = Json::object();
  Json errors = Json::array();  // {"code", "line", "message", "param"}
};

struct NewBatch {
  std::string owner;  // id of a key
  std::string endpoint, input_file, completion_window;
  std::int64_t expires_at = 0;
  Json metadata = Json::object();
  std::int64_t most_unfinished = 0;  // of its owner, this one included; 0: any number
};

struct BatchChange {
  std::optional<std::string> output_file, error_file;
  std::optional<std::int64_t> total;
  std::optional<Json> errors;
  std::optional<std::string> model;
};

/// How far it is, from its beginning.
struct BatchProgress {
  std::int64_t completed = 0, failed = 0;
  Json usage = Json::object();
};

/// The API's object "batch".
Json batch_object(const Batch& batch);

/// Threads, processes, errors: as JobStore.
class BatchStore {
 public:
  explicit BatchStore(StoreContext context) : context_(context) {}

  /// Nothing: its owner has as many unfinished ones as it may have.
  Result<std::optional<Batch>> create(const NewBatch& wanted);
  Result<Batch> find(const std::string& id) const;
  Result<Page<Batch>> list(const PageQuery& query) const;  // at most 100 a page

  /// An unfinished batch that is nobody's becomes this session's, its state unchanged: of the owner who has the fewest
  /// in work the one that has waited longest. `of_idle_owner`: only of one who has none. Those that this session gave
  /// back within the last minute are left to others.
  Result<std::optional<Batch>> take_next(bool of_idle_owner = false);
  /// The same of one that is only to be ended, whatever waits before it: cancelled, or its window has ended at `now`.
  Result<std::optional<Batch>> take_ending(std::int64_t now);
  Result<Batch> move(const std::string& id, BatchStatus to, const BatchChange& change = {});
  /// Of a batch that is not finished; gives it as it is then, so that who works on it hears of a cancellation.
  Result<Batch> set_progress(const std::string& id, const BatchProgress& progress);
  /// This session cannot work on it: it is nobody's again, for another to take. False: it stays, since no other session
  /// is alive, or each gave it back within the last few minutes.
  Result<bool> give_back(const std::string& id);
  /// Batches of dead sessions go back to be taken as they are, finalizing ones as in_progress. Gives their ids. Where
  /// there are none nothing is written.
  Result<std::vector<std::string>> recover();

 private:
  StoreContext context_;
};

}  // namespace tailor
