/// The middle of the recipe: every candidate inside the budget.

#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "core/files.h"
#include "recipes/fit_run.h"

namespace tailor {
namespace {

// The probe of a packaged candidate: rows answered together, and requests one by one. Slow candidates get fewer.
constexpr std::size_t kMostProbeRows = 60;
constexpr std::size_t kMostRequests = 40;
constexpr double kLeastProbeShare = 0.4;
constexpr double kProbeShare = 0.015;  // of the budget
constexpr double kProbeStart = 2;      // seconds to load

}  // namespace

TrialJob FitRun::job_for(const PlannedTrial& trial, const std::string& phase) const {
  TrialJob job;
  job.run = run_.root;
  job.id = trial.id;
  job.method = trial.candidate->method;
  job.model = trial.model;
  job.phase = phase;
  job.speed = speed_;
  job.threads = threads();
  return job;
}

Result<PhaseResult> FitRun::run_phase(const TrialJob& job, SteadyTime deadline) {
  const TrialRunner runner(environment_.program, run_, options_.memory_cap_bytes);
  const auto progress = [&](const Progress& p) { ui_.progress(p, elapsed(), options_.budget_seconds); };
  return runner.run(job, progress, cancel_, deadline);
}

FitRun::ProbeSize FitRun::probe_size(const Estimate& estimate) const {
  const double affordable = kProbeShare * options_.budget_seconds / std::max(1e-9, estimate.score_seconds_per_row);
  const double all = static_cast<double>(kMostProbeRows + kMostRequests);
  const double share = std::clamp(affordable / all, kLeastProbeShare, 1.0);
  ProbeSize size;
  size.rows = static_cast<std::size_t>(share * static_cast<double>(kMostProbeRows));
  size.requests = static_cast<int>(share * static_cast<double>(kMostRequests));
  size.seconds =
      estimate.score_seconds_per_row * static_cast<double>(size.rows + static_cast<std::size_t>(size.requests)) +
      kProbeStart;
  return size;
}

double FitRun::more_rows() const {
  return static_cast<double>(data_.train_and_validation().size()) /
         static_cast<double>(std::max<std::size_t>(1, data_.train().size()));
}

double FitRun::refit_seconds(const TrialRecord& record) const {
  if (record.fitted_on != "train") return 0;
  return record.plan.value("final_fit_seconds", record.train_seconds) * more_rows();
}

double FitRun::reserve(double refit_of_waiting) const {
  double scoring = 0, refit = refit_of_waiting;
  for (const auto& trial : planned_) {
    const auto it = std::find_if(records_.begin(), records_.end(),
                                 [&](const TrialRecord& r) { return r.id == trial.id && r.ok(); });
    if (it == records_.end()) continue;
    scoring += it->score_seconds_per_row * static_cast<double>(trial.score_rows.size()) + 1;
    refit = std::max(refit, refit_seconds(*it));
  }
  return scoring + std::min(refit, (kRefitShare - kRefitOverrun) * options_.budget_seconds);
}

Status FitRun::record_decision(Json decision) {
  decision["elapsed_seconds"] = elapsed();
  ui_.event(Json{{"event", "budget"}, {"decision", decision}});
  return append_jsonl(run_.budget(), decision);
}

Status FitRun::rewrite_trials() {
  return write_stream_atomic(run_.trials(), [&](std::ostream& out) {
    for (const auto& record : records_) out << dump_json(to_json(record)) << '\n';
    return Status{};
  });
}

Status FitRun::probe(const PlannedTrial& trial, TrialRecord& record) {
  TrialJob job = job_for(trial, "probe");
  const ProbeSize size = probe_size(trial.estimate);
  const RowSet from = data_.kfold() ? data_.train() : data_.validation();
  job.score_rows = stratified_sample(data_, from, size.rows, options_.seed + 1).ids;
  job.latency_requests = size.requests;
  TAILOR_TRY(const PhaseResult result, run_phase(job, SteadyTime::max()));
  if (!result.status) return result.status;
  return read_probe_outcome(run_, record);
}

Status FitRun::run_one(const PlannedTrial& trial, const Allotment& allotment, std::size_t index, TrialRecord& record) {
  TrialJob job = job_for(trial, "fit");
  job.seconds = allotment.seconds;
  if (replay_) {
    const auto it = std::find_if(replay_->trials.begin(), replay_->trials.end(),
                                 [&](const TrialRecord& r) { return r.id == trial.id; });
    if (it != replay_->trials.end() && it->ok()) job.plan = it->plan;
  }
  ui_.trial_started(record, allotment.seconds, index, planned_.size());
  // A candidate plans for its share; the hard end is for one that misjudged itself. A replay has no clock.
  const double hard_seconds = 1.5 * allotment.seconds + 30;
  const auto deadline =
      replay_ ? SteadyTime::max()
              : std::chrono::steady_clock::now() + std::chrono::milliseconds(static_cast<long>(1000 * hard_seconds));
  TAILOR_TRY(const PhaseResult result, run_phase(job, deadline));
  record.cpu_seconds = result.process.cpu_seconds;
  record.peak_memory_bytes = result.process.peak_memory_bytes;
  record.train_seconds = result.process.wall_seconds;
  Status status = result.status;
  if (status) status = read_fit_outcome(run_, record);
  if (status) status = probe(trial, record);
  if (!status && status.error().code == ErrorCode::kCancelled && cancel_.cancelled()) return status;
  record.status = status ? TrialStatus::kOk : TrialStatus::kFailed;
  if (!status) record.reason = to_string(status.error());
  record.cost_per_thousand = options_.price_per_hour * record.latency_p50_ms / 3600.0;
  return {};
}

Status FitRun::run_trials() {
  TAILOR_CHECK(make_directories(run_.root / "trials"));
  std::vector<const PlannedTrial*> waiting;
  for (const auto& trial : planned_) {
    if (find_record(trial.id) == nullptr) waiting.push_back(&trial);
  }
  if (!records_.empty()) {
    ui_.note(fmt::format("{} finished candidates are kept, {} are still to run", records_.size(), waiting.size()));
    TAILOR_CHECK(rewrite_trials());
  }
  std::size_t not_reached = 0;  // of those that come last: said once
  const auto finish = [&](TrialRecord record, bool later) -> Status {
    if (later && record.status == TrialStatus::kSkipped)
      ++not_reached;
    else
      ui_.trial_finished(record);
    ui_.event(Json{{"event", "trial"}, {"trial", to_json(record)}});
    TAILOR_CHECK(append_jsonl(run_.trials(), to_json(record)));
    records_.push_back(std::move(record));
    return {};
  };
  bool any_runs = std::any_of(records_.begin(), records_.end(), [](const TrialRecord& r) { return r.ok(); });
  while (!waiting.empty()) {
    if (cancel_.cancelled())
      return Error{ErrorCode::kCancelled, "interrupted", "go on with `tailor fit --resume " + run_.root.string() + "`"};
    const PlannedTrial& trial = *waiting.front();
    const std::size_t index = planned_.size() - waiting.size();
    TrialRecord record;
    record.id = trial.id;
    record.method = trial.candidate->method;
    record.base_model = trial.model_id;
    record.estimated_seconds = trial.estimate.fit_seconds;
    record.estimated_memory_bytes = trial.estimate.memory_bytes;
    if (!trial.unavailable.empty()) {
      record.reason = trial.unavailable;
      waiting.erase(waiting.begin());
      TAILOR_CHECK(finish(std::move(record), trial.later));
      continue;
    }
    Allotment allotment;
    if (replay_) {
      const auto it = std::find_if(replay_->budget.begin(), replay_->budget.end(), [&](const Json& d) {
        return d.value("id", "") == trial.id && d.value("kind", "") == "share";
      });
      if (it != replay_->budget.end())
        allotment = {trial.id, it->value("run", false), it->value("seconds", 0.0), it->value("reason", "")};
      else
        allotment = {trial.id, false, 0, "it did not run in the run that is repeated"};
    } else {
      std::vector<BudgetItem> items;
      double refit = 0;
      for (const PlannedTrial* next : waiting) {
        if (!next->unavailable.empty() || (next->later && !trial.later)) continue;
        const Estimate& e = next->estimate;
        items.push_back({next->id, e.fit_seconds, e.min_fit_seconds,
                         e.score_seconds_per_row * static_cast<double>(next->score_rows.size()) + probe_size(e).seconds,
                         e.fit_seconds, next->candidate->priority});
        refit = std::max(refit, data_.kfold() ? 0.0 : e.refit_seconds);
      }
      allotment = share_budget(items, options_.budget_seconds - elapsed(), reserve(refit)).front();
      // A candidate whose refit would not fit any more is no use as a winner; the last one may take what is left.
      if (allotment.run && trial.candidate->trains_network && !data_.kfold() && items.size() > 1) {
        const double most = kRefitShare / more_rows() * options_.budget_seconds;
        allotment.seconds = std::min(allotment.seconds, std::max(most, trial.estimate.min_fit_seconds));
      }
    }
    TAILOR_CHECK(record_decision(Json{{"kind", "share"},
                                      {"id", trial.id},
                                      {"run", allotment.run},
                                      {"seconds", allotment.seconds},
                                      {"reason", allotment.reason},
                                      {"score_rows", trial.score_rows.size()}}));
    waiting.erase(waiting.begin());
    if (!allotment.run) {
      record.reason = allotment.reason;
    } else {
      TAILOR_CHECK(run_one(trial, allotment, index, record));
      any_runs = any_runs || record.ok();
    }
    TAILOR_CHECK(finish(std::move(record), trial.later));
  }
  if (not_reached > 0) {
    ui_.note(fmt::format(
        "{} beyond the usual candidates {} not tried: the time that was left, or the model, did not do; result.json "
        "says why for each. Name some with --method, or all with --method all.",
        not_reached, not_reached == 1 ? "was" : "were"));
  }
  if (!any_runs) {
    const bool failed = std::any_of(records_.begin(), records_.end(),
                                    [](const TrialRecord& r) { return r.status == TrialStatus::kFailed; });
    if (failed)
      return Error{ErrorCode::kInternal,
                   "every candidate failed; the first: " + records_.front().id + ": " + records_.front().reason,
                   "see " + (run_.root / "trials").string()};
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("the budget of {} is too small for any candidate; even {} {}",
                             human_seconds(options_.budget_seconds), records_.front().method, records_.front().reason),
                 "give a larger --budget"};
  }
  // The table's order, also after a resume.
  std::map<std::string, std::size_t> order;
  for (std::size_t i = 0; i < planned_.size(); ++i) order[planned_[i].id] = i;
  std::sort(records_.begin(), records_.end(),
            [&](const TrialRecord& a, const TrialRecord& b) { return order[a.id] < order[b.id]; });
  return {};
}

}  // namespace tailor
