#pragma once
/// One candidate on one base model: its record, and the work that its own process does for it.
///
/// Each phase runs as a process of its own (`tailor trial JOB`), so that memory is measured for each candidate alone,
/// and a candidate that runs out of memory takes nobody with it:
///   fit    search settings on validation, fit, write trials/<id>/package and fit.json
///   probe  load the package and measure latency, memory and rate of answering on validation texts; write probe.json
///   score  load the package and answer test rows through predict's code path; write test.jsonl and score.json
///   refit  fit the chosen settings on train + validation into <run>/package

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "core/json.h"
#include "core/result.h"
#include "eval/intervals.h"
#include "fit/candidates.h"

namespace tailor {

enum class TrialStatus { kOk, kFailed, kSkipped };
const char* to_string(TrialStatus status);

/// A line of trials.jsonl and an element of result.json's `trials`; docs/RESULT.md describes every field.
struct TrialRecord {
  std::string id;  // "features.all-minilm-l6-v2"
  std::string method;
  std::string base_model;  // "" for the floors
  TrialStatus status = TrialStatus::kSkipped;
  std::string reason;  // why failed or skipped; may hold a remark when ok
  // fitting
  Json settings = Json::object();
  Json plan = Json::object();
  Json search = Json::array();
  bool default_only = false;
  std::vector<std::string> notes;
  double estimated_seconds = 0;
  std::uint64_t estimated_memory_bytes = 0;
  double train_seconds = 0;  // wall clock, shared work (cached embeddings) counted as if done alone
  double cpu_seconds = 0;
  std::uint64_t peak_memory_bytes = 0;
  std::uint64_t trained_bytes = 0;
  std::uint64_t package_bytes = 0;  // with the base model
  double validation_score = 0;
  std::size_t n_validation = 0;
  // scoring
  std::size_t n_scored = 0;
  ScoreIntervals scores;
  double test_score = 0;  // the user's metric
  double latency_p50_ms = 0, latency_p95_ms = 0;
  double score_seconds = 0;
  double score_seconds_per_row = 0;  // measured on validation texts
  std::uint64_t serve_memory_bytes = 0;
  double cost_per_thousand = 0;
  // against the best
  double p_value = 1;
  std::string verdict;              // best | tie | worse; empty where not scored
  std::string fitted_on = "train";  // "train", or "train+validation" after the refit
  std::optional<Json>
      before_refit;  // metrics of the artefact that was compared, where the row shows the refitted package

  bool ok() const { return status == TrialStatus::kOk; }
};
Json to_json(const TrialRecord& record);
Result<TrialRecord> trial_record_from_json(const Json& json);

/// Paths inside a run directory.
struct RunDirectory {
  std::filesystem::path root;
  std::filesystem::path options() const { return root / "run.json"; }
  std::filesystem::path split() const { return root / "split.jsonl"; }
  std::filesystem::path data_report() const { return root / "data_report.json"; }
  std::filesystem::path advice() const { return root / "advice.json"; }
  std::filesystem::path trials() const { return root / "trials.jsonl"; }
  std::filesystem::path budget() const { return root / "budget.jsonl"; }
  std::filesystem::path events() const { return root / "events.jsonl"; }
  std::filesystem::path result() const { return root / "result.json"; }
  std::filesystem::path cache() const { return root / "cache"; }
  std::filesystem::path package() const { return root / "package"; }
  std::filesystem::path trial(const std::string& id) const { return root / "trials" / id; }
};

/// What the parent tells the process of a phase.
struct TrialJob {
  std::filesystem::path run;
  std::string id;
  std::string method;
  std::string model;  // as resolve_model takes it; empty: none
  std::string phase;  // fit | probe | score | refit | score-refit
  double seconds = 0;
  MachineSpeed speed;
  std::optional<Json> plan;
  std::optional<Json> settings;
  std::vector<std::uint32_t> score_rows;  // probe, score: ids of the rows to answer
  int latency_requests = 40;              // probe: single requests to time
  int threads = 1;
};
Json to_json(const TrialJob& job);
Result<TrialJob> trial_job_from_json(const Json& json);

/// The body of a phase, in the child. Writes fit.json or score.json in the trial's directory; progress goes to
/// `progress`.
Status run_trial_phase(const TrialJob& job, const ProgressFn& progress, const CancelToken& cancel, Logger& log);

/// What the phases leave behind, read by the parent into the record.
Status read_fit_outcome(const RunDirectory& run, TrialRecord& record);
Status read_probe_outcome(const RunDirectory& run, TrialRecord& record);
Status read_score_outcome(const RunDirectory& run, TrialRecord& record);

}  // namespace tailor
