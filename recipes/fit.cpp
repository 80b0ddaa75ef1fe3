#include "recipes/fit.h"

#include "core/files.h"
#include "recipes/fit_run.h"
#include "recipes/run_directory.h"

namespace tailor {
namespace {

Result<FitSummary> go_through(FitRun& run) {
  TAILOR_CHECK(run.run_trials());
  TAILOR_CHECK(run.decide_winner());
  TAILOR_CHECK(run.score_on_test());
  TAILOR_CHECK(run.refit_winner());
  TAILOR_CHECK(run.write_results());
  return run.summary();
}

struct Interrupted {
  FitOptions options;
  std::vector<TrialRecord> trials;
  std::vector<Json> budget;
  double elapsed = 0;
};

/// What an earlier run left behind.
Result<Interrupted> read_run(const std::filesystem::path& directory) {
  const RunDirectory run{directory};
  TAILOR_TRY(const Json json, read_run_json(directory, kRunFormat));
  Interrupted state;
  TAILOR_TRY(state.options, fit_options_of_run(json));
  state.options.out = directory;
  std::error_code ignored;
  if (std::filesystem::exists(run.trials(), ignored)) {
    TAILOR_TRY(const std::vector<Json> lines, read_jsonl(run.trials(), /*drop_partial_last=*/true));
    for (const Json& line : lines) {
      TAILOR_TRY(TrialRecord record, trial_record_from_json(line));
      state.trials.push_back(std::move(record));
    }
  }
  if (std::filesystem::exists(run.budget(), ignored)) {
    TAILOR_TRY(state.budget, read_jsonl(run.budget(), /*drop_partial_last=*/true));
    for (const Json& decision : state.budget)
      state.elapsed = std::max(state.elapsed, decision.value("elapsed_seconds", 0.0));
  }
  return state;
}

}  // namespace

Result<FitSummary> fit(FitOptions options, const FitEnvironment& environment, FitUi& ui, const CancelToken& cancel) {
  if (!options.dry_run) TAILOR_CHECK(refuse_existing(options.out, "fit"));
  FitRun run(std::move(options), environment, ui, cancel);
  TAILOR_CHECK(run.prepare());
  TAILOR_CHECK(run.plan());
  TAILOR_CHECK(run.advise());
  if (run.summary().stopped_after_advice) return run.summary();
  TAILOR_CHECK(run.write_start());
  return go_through(run);
}

Result<FitSummary> resume_fit(const std::filesystem::path& directory, const FitEnvironment& environment, FitUi& ui,
                              const CancelToken& cancel) {
  TAILOR_TRY(Interrupted state, read_run(directory));
  FitRun run(state.options, environment, ui, cancel);
  TAILOR_CHECK(run.reopen());
  run.keep_finished(std::move(state.trials), state.elapsed);
  TAILOR_CHECK(run.plan());
  return go_through(run);
}

Result<FitSummary> replay_fit(const std::filesystem::path& directory, const std::filesystem::path& out,
                              const FitEnvironment& environment, FitUi& ui, const CancelToken& cancel) {
  TAILOR_TRY(Interrupted state, read_run(directory));
  TAILOR_CHECK(refuse_existing(out, "fit"));
  FitOptions options = state.options;
  options.out = out;
  FitRun run(std::move(options), environment, ui, cancel);
  run.use_recorded_decisions(std::move(state.budget), std::move(state.trials));
  TAILOR_CHECK(run.prepare());
  TAILOR_CHECK(run.plan());
  TAILOR_CHECK(run.advise());
  TAILOR_CHECK(run.write_start());
  return go_through(run);
}

}  // namespace tailor
