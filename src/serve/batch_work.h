#pragma once
/// One batch that is worked on: its lines, what is answered of them, and how it begins and ends in the store.

#include <cstdint>
#include <deque>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/log.h"
#include "serve/batch_call.h"
#include "serve/batch_input.h"
#include "serve/batch_results.h"
#include "serve/served_model.h"
#include "store/store.h"

namespace tailor {

/// Where it keeps what it has: runs/<id> below the store.
std::filesystem::path batch_directory(const Store& store, const std::string& id);

/// {"code", "line": null, "message", "param": null}, in a list.
Json batch_error(const std::string& code, const std::string& message);

/// Whether the batch's owner may ask for a model of this name here.
using HasModel = std::function<bool(const std::string&)>;

/// Threads: one at a time.
struct BatchWork {
  struct Asked {
    std::shared_ptr<BatchCall> call;
    std::string model;
    std::size_t answers = 1;
  };
  Batch batch;
  const ApiRoute* route = nullptr;
  std::optional<BatchChange> start;     // its file is good, and it is not yet in_progress
  std::optional<BatchInput> input;      // none: it only has to be ended
  std::optional<BatchResults> results;  // none: nothing was answered
  std::size_t next = 0;                 // line
  std::deque<std::size_t> again;        // lines that had no place
  std::map<std::size_t, Asked> asked;
  std::map<std::size_t, int> attempts;
  std::vector<BatchAnswer> unsaved;
  SteadyTime not_before{};            // the next request: its key or the server has no room
  SteadyTime stalled_until{};         // the disk has none
  std::optional<BatchStatus> ending;  // what it becomes when nothing is under way
  Json errors = Json::array();        // then
  std::optional<Error> unread;        // the disk had no place for its answers, or did not give them: to be read again
  bool waits_for_disk = false;        // as was warned of
  bool elsewhere = false;             // all that is wrong with its file is that none of its models is here
  std::uint64_t turn = 0;             // when its last request was asked, counted in requests

  /// Reads its file, and what a server before this one answered. Where that cannot be it is ending, or `unread`.
  static std::unique_ptr<BatchWork> open(const Batch& batch, Store& store, const HasModel& has_model,
                                         const BatchInputLimits& limits, Logger& log);
  void read_again(Store& store, const HasModel& has_model, const BatchInputLimits& limits, Logger& log);
  bool has_line();  ///< that nobody was asked
  bool is_over();   ///< nothing is under way, nor will be
  /// Its files and its last state. kIo and kUnavailable: to be called again, when there is room.
  Status finish(Store& store, Logger& log);
  /// Failed, where finish() cannot be helped. Its answers stay in its directory until a server starts.
  Status give_up(Store& store);

 private:
  Json read(bool fresh, Store& store, const HasModel& has_model, const BatchInputLimits& limits, Logger& log);
};

}  // namespace tailor
