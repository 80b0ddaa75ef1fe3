/// The end of the recipe: decide on validation, prove on the test part, refit the winner, write everything down.

#include <fmt/format.h>

#include <algorithm>
#include <fstream>

#include "core/files.h"
#include "data/csv.h"
#include "eval/intervals.h"
#include "fit/report_html.h"
#include "fit/report_markdown.h"
#include "fit/table.h"
#include "recipes/fit_run.h"
#include "recipes/run_directory.h"

namespace tailor {
namespace fs = std::filesystem;
namespace {

constexpr int kResultVersion = 1;

}  // namespace

Status FitRun::decide_winner() {
  ui_.stage("comparing on validation rows");
  validation_.assign(records_.size(), {});
  for (std::size_t i = 0; i < records_.size(); ++i) {
    if (!records_[i].ok()) continue;
    TAILOR_TRY(validation_[i], load_predictions(run_.trial(records_[i].id) / "validation.jsonl", data_.label_names()));
  }
  TAILOR_TRY(decision_,
             decide(records_, validation_, options_, *metric_, static_cast<int>(data_.label_names().size())));
  return {};
}

Status FitRun::fill_scores(TrialRecord& record, const Predictions& p) const {
  const int classes = static_cast<int>(data_.label_names().size());
  record.scores = bootstrap_scores(p.truth, p.predicted, classes, {.seed = options_.seed});
  record.test_score = metric_->score(p.truth, p.predicted, classes);
  return {};
}

Status FitRun::score_on_test() {
  ui_.stage("scoring the test part");
  test_.assign(records_.size(), {});
  for (std::size_t i = 0; i < records_.size(); ++i) {
    TrialRecord& record = records_[i];
    if (!record.ok()) continue;
    const auto planned =
        std::find_if(planned_.begin(), planned_.end(), [&](const PlannedTrial& t) { return t.id == record.id; });
    if (planned == planned_.end()) continue;
    const fs::path directory = run_.trial(record.id);
    std::error_code ignored;
    if (!fs::exists(directory / "score.json", ignored)) {  // an interrupted run may have it already: scored once only
      ui_.stage(fmt::format("scoring {} on {} test rows", record.id, planned->score_rows.size()));
      TrialJob job = job_for(*planned, "score");
      job.score_rows = planned->score_rows;
      TAILOR_TRY(const PhaseResult result, run_phase(job, SteadyTime::max()));
      if (!result.status) {
        record.status = TrialStatus::kFailed;
        record.reason = "scoring the test part failed: " + to_string(result.status.error());
        continue;
      }
    }
    TAILOR_CHECK(read_score_outcome(run_, record));
    TAILOR_TRY(test_[i], load_predictions(directory / "test.jsonl", data_.label_names()));
    TAILOR_CHECK(fill_scores(record, test_[i]));
  }
  return compare_on_test(records_, test_, *metric_, static_cast<int>(data_.label_names().size()), options_.seed);
}

Status FitRun::refit_winner() {
  TrialRecord* winner = find_record(decision_.recommended);
  if (winner == nullptr) return {};
  const auto planned =
      std::find_if(planned_.begin(), planned_.end(), [&](const PlannedTrial& t) { return t.id == winner->id; });
  const fs::path directory = run_.trial(winner->id);
  const double seconds = refit_seconds(*winner);
  const double left = (1 + kRefitOverrun) * options_.budget_seconds - elapsed();
  bool refit = winner->fitted_on == "train";
  std::string remark;
  if (refit && replay_) {
    const auto it = std::find_if(replay_->budget.begin(), replay_->budget.end(),
                                 [](const Json& d) { return d.value("kind", "") == "refit"; });
    if (it != replay_->budget.end()) refit = it->value("run", true);
  } else if (refit && seconds > std::max(left, 5.0)) {
    refit = false;
    remark = fmt::format(
        "The package is the one that was scored, fitted on the training rows alone: refitting on train + validation "
        "needs about {}, the budget has {} left.",
        human_seconds(seconds), human_seconds(std::max(0.0, left)));
  }
  TAILOR_CHECK(record_decision(
      Json{{"kind", "refit"}, {"id", winner->id}, {"run", refit}, {"seconds", seconds}, {"reason", remark}}));
  if (!remark.empty()) ui_.note(remark);
  fs::path made = directory / "package";
  if (refit) {
    ui_.stage(fmt::format("refitting {} on train + validation", winner->id));
    TrialJob job = job_for(*planned, "refit");
    job.settings = winner->settings;
    job.plan = winner->plan;
    job.seconds = seconds;
    TAILOR_TRY(const PhaseResult result, run_phase(job, SteadyTime::max()));
    if (!result.status) {
      if (cancel_.cancelled()) return result.status;
      ui_.warning("refitting the winner failed, its package fitted on the training rows is kept: " +
                  to_string(result.status.error()));
      refit = false;
    } else {
      made = directory / "refit";
    }
  }
  // The package is finished beside and renamed, with the base model inside.
  const fs::path staging = run_.root / "package.new";
  TAILOR_CHECK(remove_tree(staging));
  TAILOR_CHECK(make_directories(staging));
  for (const auto& entry : fs::recursive_directory_iterator(made)) {
    if (!entry.is_regular_file() || entry.path().filename() == "manifest.json" ||
        entry.path().filename() == "README.md")
      continue;
    const fs::path target = staging / entry.path().lexically_relative(made);
    TAILOR_CHECK(make_directories(target.parent_path()));
    TAILOR_CHECK(tailor::copy_file(entry.path(), target));
  }
  TAILOR_TRY(PackageManifest manifest, read_package(made));
  TAILOR_CHECK(close_package(staging, manifest, /*include_base_model=*/true));
  TAILOR_CHECK(replace_directory(staging, run_.package()));
  if (refit) TAILOR_CHECK(remove_tree(made));  // the package holds all of it

  // The row of the winner shows the package the user gets; the comparison stays the one of like with like.
  ui_.stage("scoring the package");
  TrialJob job = job_for(*planned, "score-refit");
  job.score_rows = planned->score_rows;
  TAILOR_TRY(const PhaseResult result, run_phase(job, SteadyTime::max()));
  TAILOR_CHECK(result.status);
  TAILOR_TRY(const Predictions answers, load_predictions(directory / "refit_test.jsonl", data_.label_names()));
  const std::size_t at = static_cast<std::size_t>(winner - records_.data());
  if (refit) {
    winner->before_refit = Json{{"accuracy", winner->scores.accuracy.value},
                                {"macro_f1", winner->scores.macro_f1.value},
                                {"test_score", winner->test_score}};
    winner->fitted_on = "train+validation";
  }
  TAILOR_CHECK(fill_scores(*winner, answers));
  test_[at] = answers;
  winner->package_bytes = tree_bytes(run_.package());
  TAILOR_TRY(PackageManifest finished, read_package(run_.package()));
  finished.scores = package_scores(winner->n_scored, winner->scores);
  return close_package(run_.package(), finished, /*include_base_model=*/true);
}

Status FitRun::write_results() {
  ui_.stage("writing the report");
  TAILOR_CHECK(rewrite_trials());
  const TrialRecord* winner = find_record(decision_.recommended);
  Json recommended = nullptr;
  if (winner != nullptr) {
    recommended = Json{{"method", winner->method},
                       {"base_model", winner->base_model},
                       {"reason", decision_.reason},
                       {"would_change", decision_.would_change},
                       {"best_on_validation", decision_.best}};
  }
  Json standings = Json::array();
  for (const auto& s : decision_.standings) {
    standings.push_back(Json{{"id", s.id},
                             {"within_limits", s.within_limits},
                             {"limit", s.limit},
                             {"difference", s.difference},
                             {"p_value", s.p_value},
                             {"n_common", s.n_common},
                             {"tied", s.tied}});
  }
  Json trials = Json::array();
  for (const auto& record : records_) trials.push_back(to_json(record));
  TAILOR_TRY(const std::vector<Json> budget, read_jsonl(run_.budget(), true));
  TAILOR_TRY(const Json advice, read_json(run_.advice()));
  TAILOR_TRY(const Json data, read_json(run_.data_report()));
  TAILOR_TRY(const Json run, read_json(run_.options()));
  const Json split{{"mode", data_.kfold() ? "kfold" : "holdout"},
                   {"folds", data_.kfold() ? data_.split.folds : 0},
                   {"train", data_.train().size()},
                   {"validation", data_.validation().size()},
                   {"test", data_.test().size()},
                   {"manifest", "split.jsonl"}};
  const Json result{{"format", "tailor-result"},
                    {"version", kResultVersion},
                    {"recommended", recommended},
                    {"metric", metric_->name()},
                    {"standings", standings},
                    {"trials", trials},
                    {"data", data},
                    {"split", split},
                    {"seed", options_.seed},
                    {"threads", threads()},
                    {"budget_seconds", options_.budget_seconds},
                    {"elapsed_seconds", elapsed()},
                    {"budget_decisions", budget},
                    {"labels", data_.label_names()},
                    {"machine", run.at("machine")},
                    {"command", run.at("command")},
                    {"versions", Json{{"tailor", TAILOR_VERSION}, {"package", kPackageVersion}}}};
  ReportInput input;
  input.options = options_;
  input.trials = records_;
  input.decision = decision_;
  input.test = test_;
  input.validation = validation_;
  input.label_names = data_.label_names();
  if (!options_.no_texts) input.texts = data_.dataset.texts;
  input.lines = data_.dataset.lines;
  input.file_of = data_.dataset.file_of;
  input.file_names = data_.dataset.files;
  input.file_hashes = data_.file_hashes;
  input.methods = describe_methods();
  double prompting = -1;
  for (const auto& record : records_) {
    if (record.method.find("shot") != std::string::npos && record.n_scored > 0)
      prompting = std::max(prompting, record.test_score);
  }
  if (winner != nullptr)
    input.advice_against_measured = advice_against_measured(advice_, winner->method, winner->test_score, prompting);
  auto manifest = read_json(run_.package() / "manifest.json");
  if (manifest) input.package = std::move(*manifest);
  input.result = result;
  input.advice = advice;
  TAILOR_CHECK(write_file_atomic(run_.root / "report.html", report_html(input)));
  TAILOR_CHECK(write_file_atomic(run_.root / "report.md", report_markdown(input)));
  TAILOR_CHECK(remove_tree(run_.cache()));
  TAILOR_CHECK(write_json_atomic(run_.result(), result));  // last: its presence means the run is whole
  ui_.event(Json{
      {"event", "done"}, {"run", run_.root.string()}, {"recommended", recommended}, {"elapsed_seconds", elapsed()}});
  return {};
}

}  // namespace tailor
