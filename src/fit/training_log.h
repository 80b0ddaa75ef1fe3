#pragma once
/// What a training says while it runs, kept in the run directory: train_log.jsonl (the events of tailor-tune, each with
/// its time) and tensorboard/ (event files).

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "core/json.h"
#include "core/result.h"
#include "fit/tensorboard.h"

namespace tailor {

inline constexpr const char* kTrainLogFile = "train_log.jsonl";
inline constexpr const char* kTensorboardDirectory = "tensorboard";

class TrainingLog {
 public:
  /// `labels`: evaluations count right answers, not only the loss. `clock`: seconds since 1970.
  TrainingLog(std::filesystem::path run, bool labels, std::function<double()> clock);

  /// One event of tailor-tune (docs/TUNE_JOB.md). The `start` of a resumed training takes back what was logged after
  /// the step that it goes on from; an event that was logged before is not logged again. Events before `start` are not
  /// kept.
  Status add(const Json& event);

 private:
  Status start(const Json& event, double now);
  Status to_tensorboard(const Json& event, double now);

  std::filesystem::path run_;
  bool labels_;
  std::function<double()> clock_;
  std::optional<EventFileWriter> writer_;
  std::map<std::string, std::int64_t> last_step_;  // by event
  double tokens_ = 0, seconds_ = 0;                // at the step before, for the rate
};

/// The events of a run, oldest first; those that a roll-back took back are left out. Empty where there is no log.
std::vector<Json> read_training_log(const std::filesystem::path& run);

}  // namespace tailor
