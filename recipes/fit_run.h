#pragma once
/// The state of one run of `fit` while the recipe goes through its steps. Private to recipes/fit*.cpp.

#include <chrono>
#include <optional>
#include <string>
#include <vector>

#include "core/json.h"
#include "fit/advice.h"
#include "fit/trial_runner.h"
#include "recipes/fit.h"

namespace tailor {

inline constexpr std::string_view kRunFormat = "tailor-run";  // of run.json

// Of the budget: the refit of the winner may take kRefitShare, of which kRefitOverrun may run over the budget and the
// rest is kept in reserve. A dearer refit is left out with a remark.
inline constexpr double kRefitShare = 0.2;
inline constexpr double kRefitOverrun = 0.08;

/// One candidate on one model, with its estimate.
struct PlannedTrial {
  const Candidate* candidate = nullptr;
  std::string model;     // as resolve_model takes it
  std::string model_id;  // "all-minilm-l6-v2"
  std::string id;
  Estimate estimate;
  std::vector<std::uint32_t> score_rows;  // fixed before anything runs
  std::string unavailable;                // why it cannot run at all here; empty: it can
  bool later = false;                     // it gets nothing before every other has had its turn
};

class FitRun {
 public:
  FitRun(FitOptions options, const FitEnvironment& environment, FitUi& ui, const CancelToken& cancel);

  // The steps, in order; fit.cpp calls them.
  Status prepare();        // data, checks, split
  Status reopen();         // the same from an existing run directory
  Status plan();           // machine speed, candidates, estimates
  Status advise();         // advice.json, shown to the user
  Status write_start();    // run.json, split.jsonl, data_report.json
  Status run_trials();     // search, training, validation, inside the budget
  Status decide_winner();  // on validation
  Status score_on_test();
  Status refit_winner();
  Status write_results();  // result.json, report.html, report.md, trials.jsonl, predictions.csv

  void use_recorded_decisions(std::vector<Json> budget, std::vector<TrialRecord> trials);  // replay
  void keep_finished(std::vector<TrialRecord> trials, double elapsed_seconds);             // resume

  FitSummary summary() const;
  const RunDirectory& directory() const { return run_; }
  double elapsed() const;

 private:
  struct Replay {
    std::vector<Json> budget;
    std::vector<TrialRecord> trials;
  };
  Status run_one(const PlannedTrial& trial, const Allotment& allotment, std::size_t index, TrialRecord& record);
  Status probe(const PlannedTrial& trial, TrialRecord& record);
  struct ProbeSize {
    std::size_t rows = 0;
    int requests = 0;
    double seconds = 0;
  };
  ProbeSize probe_size(const Estimate& estimate) const;
  TrialJob job_for(const PlannedTrial& trial, const std::string& phase) const;
  Result<PhaseResult> run_phase(const TrialJob& job, SteadyTime deadline);
  double reserve(double refit_of_waiting) const;  // seconds kept for scoring what is fitted and for the refit
  double more_rows() const;                       // of train + validation, for each row of train
  double refit_seconds(const TrialRecord& record) const;
  Status record_decision(Json decision);
  Status rewrite_trials();
  TrialRecord* find_record(const std::string& id);
  int threads() const;
  Status fill_scores(TrialRecord& record, const Predictions& predictions) const;

  FitOptions options_;
  const FitEnvironment& environment_;
  FitUi& ui_;
  const CancelToken& cancel_;
  std::chrono::steady_clock::time_point start_;
  double elapsed_before_ = 0;  // of the interrupted run that this one goes on with
  RunDirectory run_;
  PreparedData data_;
  DataReport report_;
  Leaks leaks_;
  MachineSpeed speed_;
  Advice advice_;
  std::vector<PlannedTrial> planned_;
  std::vector<TrialRecord> records_;
  std::vector<Predictions> validation_, test_;  // parallel to records_
  std::optional<Metric> metric_;
  Decision decision_;
  std::optional<Replay> replay_;
  Json refit_ = nullptr;
};

}  // namespace tailor
