#include "recipes/fit_run.h"

#include <fmt/format.h>

#include <algorithm>

#include "core/files.h"
#include "core/system.h"
#include "data/split_manifest.h"
#include "fit/machine_speed.h"
#include "fit/paths.h"
#include "fit/tune_process.h"
#include "fit/tuned_search.h"
#include "recipes/run_directory.h"

namespace tailor {
namespace fs = std::filesystem;
namespace {

constexpr int kRunVersion = 1;
constexpr std::size_t kSubsampleRows = 500;  // of the test part, for candidates too dear for all of it
constexpr double kScoreShare = 0.05;         // of the budget: dearer than this to score is too dear

std::vector<std::string> default_models() {
  return {"all-minilm-l6-v2", "smollm2-135m-instruct"};
}

}  // namespace

FitRun::FitRun(FitOptions options, const FitEnvironment& environment, FitUi& ui, const CancelToken& cancel)
    : options_(std::move(options)),
      environment_(environment),
      ui_(ui),
      cancel_(cancel),
      start_(std::chrono::steady_clock::now()),
      run_{fs::absolute(options_.out)} {
  options_.out = run_.root;
}

double FitRun::elapsed() const {
  return elapsed_before_ + std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
}

int FitRun::threads() const {
  return options_.threads > 0 ? options_.threads : system_info().cores;
}

void FitRun::use_recorded_decisions(std::vector<Json> budget, std::vector<TrialRecord> trials) {
  replay_ = Replay{std::move(budget), std::move(trials)};
}

void FitRun::keep_finished(std::vector<TrialRecord> trials, double elapsed_seconds) {
  elapsed_before_ = elapsed_seconds;
  // A trial that was skipped or failed for an outer reason may do better now; what is ok stays.
  for (auto& record : trials) {
    if (record.ok()) records_.push_back(std::move(record));
  }
}

Status FitRun::prepare() {
  ui_.stage("reading the data");
  TAILOR_TRY(data_, prepare_data(options_, report_, leaks_));
  TAILOR_TRY(metric_, Metric::parse(options_.metric, data_.label_names()));
  for (const auto& finding : report_.findings) {
    if (finding.severity != Severity::kNote) ui_.warning(finding.message);
  }
  return {};
}

Status FitRun::reopen() {
  ui_.stage("reading the data again");
  TAILOR_TRY(const Json json, read_json(run_.options()));
  TAILOR_TRY(data_, reload_data(options_, run_.split(), json.at("file_hashes").get<std::vector<std::string>>()));
  TAILOR_TRY(metric_, Metric::parse(options_.metric, data_.label_names()));
  advice_ = make_advice(options_.answers, data_, options_);
  return {};
}

Status FitRun::plan() {
  ui_.stage("measuring this machine");
  const std::vector<std::string> models = options_.models.empty() ? default_models() : options_.models;
  std::vector<TrialModel> resolved;
  for (const auto& name : models) {
    auto info = resolve_model(name, default_models_directory());
    if (!info) {
      if (!options_.models.empty()) return info.error();
      ui_.warning(to_string(info.error()));  // a default model that set-up did not fetch: go on without it
      continue;
    }
    resolved.push_back({std::move(*info), name});
  }
  ModelKinds kinds;
  for (const TrialModel& model : resolved)
    (model.info.kind == ModelKind::kEncoder ? kinds.encoder : kinds.decoder) = true;
  TAILOR_TRY(const std::vector<const Candidate*> chosen, choose_candidates(options_.methods, kinds));
  TAILOR_TRY(speed_, measure_machine(resolved, threads(), cancel_));
  const bool can_tune = !find_tune_program().empty();
  const RowSet test = data_.test();
  const RowSet subsample = stratified_sample(data_, test, kSubsampleRows, options_.seed);
  for (const Candidate* each : chosen) {
    const Candidate& candidate = *each;
    std::vector<std::optional<TrialModel>> on;
    if (candidate.role == ModelRole::kNone) on.emplace_back();
    for (const auto& model : resolved) {
      const bool fits = candidate.role == ModelRole::kAny ||
                        (candidate.role == ModelRole::kEncoder && model.info.kind == ModelKind::kEncoder) ||
                        (candidate.role == ModelRole::kDecoder && model.info.kind == ModelKind::kDecoder);
      if (fits) on.emplace_back(model);
    }
    for (const auto& model : on) {
      PlannedTrial trial;
      trial.candidate = &candidate;
      trial.model = model ? model->directory_or_file.string() : "";
      trial.model_id = model ? model->info.id : "";
      trial.id = std::string(candidate.method) + (model ? "." + model->info.id : "");
      NullLogger log;
      const ProgressFn no_progress;
      TrialContext context{candidate,
                           data_,
                           options_,
                           model,
                           speed_,
                           options_.budget_seconds,
                           {},
                           {},
                           data_.train(),
                           data_.validation(),
                           {},
                           {},
                           run_.cache(),
                           threads(),
                           no_progress,
                           cancel_,
                           log};
      trial.estimate = candidate.estimate(context);
      trial.later = options_.methods.empty() && !candidate.usual;
      if (candidate.trains_network && !can_tune) {
        trial.unavailable =
            "this build has no tailor-tune (libtorch was not found when it was built): run `make setup`, then `make "
            "build`";
      }
      if (!candidate.needs.empty()) trial.unavailable = candidate.needs;
      const TunedSearch* search = find_tuned_search(candidate.method);
      if (search != nullptr && model && trial.unavailable.empty()) trial.unavailable = unsuited(*search, model->info);
      const double all_rows = trial.estimate.score_seconds_per_row * static_cast<double>(test.size());
      trial.score_rows = all_rows > std::max(20.0, kScoreShare * options_.budget_seconds) ? subsample.ids : test.ids;
      planned_.push_back(std::move(trial));
    }
  }
  if (planned_.empty()) {
    return Error{ErrorCode::kInvalidArgument,
                 "no candidate is left: the methods named with --method need another kind of model than those named "
                 "with --model",
                 "leave out --method or --model"};
  }
  return {};
}

Status FitRun::advise() {
  advice_ = make_advice(options_.answers, data_, options_);
  std::string text = advice_text(advice_);
  text += fmt::format("\nWhat each candidate would take on this machine ({} cores), at a budget of {}:\n", threads(),
                      human_seconds(options_.budget_seconds));
  Json estimates = Json::array();
  bool later = false;
  for (const auto& trial : planned_) {
    if (trial.later && !later) text += "  and after these, with the time that they leave over:\n";
    later = trial.later;
    const Estimate& e = trial.estimate;
    const double score = e.score_seconds_per_row * static_cast<double>(trial.score_rows.size());
    text += fmt::format("  {:<42} {:>12} to fit {:>12} to score {:>8}{}\n", trial.id, human_seconds(e.fit_seconds),
                        human_seconds(score), human_bytes(static_cast<double>(e.memory_bytes)),
                        trial.unavailable.empty() ? "" : "  (cannot run here)");
    estimates.push_back(Json{{"id", trial.id},
                             {"fit_seconds", e.fit_seconds},
                             {"minimum_seconds", e.min_fit_seconds},
                             {"score_seconds", score},
                             {"score_rows", trial.score_rows.size()},
                             {"refit_seconds", e.refit_seconds},
                             {"memory_bytes", e.memory_bytes}});
  }
  ui_.text(text);
  Json json = to_json(advice_);
  json["estimates"] = estimates;
  json["speed"] = to_json(speed_);
  ui_.event(Json{{"event", "advice"}, {"advice", json}});
  if (!options_.dry_run) {
    TAILOR_CHECK(make_directories(run_.root));
    TAILOR_CHECK(write_json_atomic(run_.advice(), json));
  }
  return {};
}

Status FitRun::write_start() {
  TAILOR_CHECK(write_split_manifest(run_.split(), data_.dataset, data_.split));
  Json report = to_json(report_);
  report["leaks"] = to_json(leaks_, data_.dataset, 100);
  TAILOR_CHECK(write_json_atomic(run_.data_report(), report));
  return write_run_json(run_.options(), kRunFormat, kRunVersion, environment_.command_line, to_json(options_),
                        data_.dataset.files, data_.file_hashes);
}

FitSummary FitRun::summary() const {
  FitSummary s{run_.root, decision_, records_, elapsed(), false, options_.dry_run};
  s.some_failed = std::any_of(records_.begin(), records_.end(),
                              [](const TrialRecord& r) { return r.status == TrialStatus::kFailed; });
  return s;
}

TrialRecord* FitRun::find_record(const std::string& id) {
  const auto it = std::find_if(records_.begin(), records_.end(), [&](const TrialRecord& r) { return r.id == id; });
  return it == records_.end() ? nullptr : &*it;
}

}  // namespace tailor
