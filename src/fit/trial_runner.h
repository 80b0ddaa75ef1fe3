#pragma once
/// Starts the process of a trial's phase and turns what comes back into a result a person can read.

#include <filesystem>
#include <string>

#include "core/cancel.h"
#include "core/process.h"
#include "core/progress.h"
#include "core/result.h"
#include "fit/trial.h"

namespace tailor {

struct PhaseResult {
  Status status;          // the phase's own error, or how the process ended
  ProcessResult process;  // seconds and memory as the system counted them
};

class TrialRunner {
 public:
  /// `program`: the tailor binary. `memory_cap_bytes` 0: none.
  TrialRunner(std::filesystem::path program, RunDirectory run, std::uint64_t memory_cap_bytes)
      : program_(std::move(program)), run_(std::move(run)), memory_cap_bytes_(memory_cap_bytes) {}

  /// Runs to the end or to `hard_deadline`. Cancellation gives an error of kind kCancelled.
  Result<PhaseResult> run(const TrialJob& job, const ProgressFn& progress, const CancelToken& cancel,
                          SteadyTime hard_deadline) const;

 private:
  std::filesystem::path program_;
  RunDirectory run_;
  std::uint64_t memory_cap_bytes_;
};

/// The child's side: progress and errors as JSON lines on standard output (docs/EVENTS.md).
Json progress_event(const Progress& progress);

}  // namespace tailor
