#pragma once
/// Recipe: the main job. Reads and splits the data, advises, runs every candidate inside the budget, decides on
/// validation, proves on the test part, refits the winner, and writes the run directory.

#include <filesystem>
#include <string>
#include <vector>

#include "core/cancel.h"
#include "core/result.h"
#include "fit/decision.h"
#include "fit/options.h"
#include "fit/trial.h"
#include "recipes/fit_ui.h"

namespace tailor {

struct FitEnvironment {
  std::filesystem::path program;  // the tailor binary, to start the trials' processes
  std::string command_line;       // as the user typed it, for the report
};

struct FitSummary {
  std::filesystem::path run;
  Decision decision;
  std::vector<TrialRecord> trials;
  double elapsed_seconds = 0;
  bool some_failed = false;           // exit code 3
  bool stopped_after_advice = false;  // --dry-run
};

/// A new run. `options.out` must not hold a run yet.
Result<FitSummary> fit(FitOptions options, const FitEnvironment& environment, FitUi& ui, const CancelToken& cancel);

/// Goes on with an interrupted run: finished trials are kept.
Result<FitSummary> resume_fit(const std::filesystem::path& run, const FitEnvironment& environment, FitUi& ui,
                              const CancelToken& cancel);

/// Repeats a run's decisions of the budget and of every plan without looking at the clock, into a new directory.
Result<FitSummary> replay_fit(const std::filesystem::path& run, const std::filesystem::path& out,
                              const FitEnvironment& environment, FitUi& ui, const CancelToken& cancel);

}  // namespace tailor
