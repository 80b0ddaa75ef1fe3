#include "fit/trial.h"

#include <fmt/format.h>

#include <algorithm>

#include "core/files.h"
#include "core/process.h"
#include "core/stopwatch.h"
#include "eval/latency.h"
#include "fit/paths.h"

namespace tailor {
namespace fs = std::filesystem;
namespace {

struct RunContext {
  FitOptions options;
  PreparedData data;
};

Result<RunContext> open_run(const RunDirectory& run) {
  TAILOR_TRY(const Json json, read_json(run.options()));
  TAILOR_TRY(FitOptions options, fit_options_of_run(json));
  const auto hashes = json.at("file_hashes").get<std::vector<std::string>>();
  TAILOR_TRY(PreparedData data, reload_data(options, run.split(), hashes));
  return RunContext{std::move(options), std::move(data)};
}

Json search_to_json(const std::vector<SearchPoint>& points) {
  Json json = Json::array();
  for (const auto& p : points)
    json.push_back(Json{{"settings", p.settings}, {"score", p.score}, {"seconds", p.seconds}, {"rows", p.rows}});
  return json;
}

Status run_fit_phase(const TrialJob& job, const RunDirectory& run, const ProgressFn& progress,
                     const CancelToken& cancel, Logger& log) {
  const Stopwatch watch;
  TAILOR_TRY(const RunContext context, open_run(run));
  const bool refit = job.phase == "refit";
  const Candidate* candidate = find_candidate_method(job.method);
  if (candidate == nullptr) return Error{ErrorCode::kInternal, "unknown method " + job.method, ""};
  const fs::path directory = run.trial(job.id);
  const fs::path package = refit ? directory / "refit" : directory / "package";
  TAILOR_CHECK(remove_tree(package));
  TAILOR_CHECK(make_directories(package));
  TAILOR_CHECK(make_directories(run.cache()));
  std::optional<TrialModel> model;
  if (!job.model.empty()) {
    TAILOR_TRY(ModelInfo info, resolve_model(job.model, default_models_directory()));
    model = TrialModel{std::move(info), job.model};
  }
  const RowSet fit_rows = refit ? context.data.train_and_validation() : context.data.train();
  const RowSet validation_rows = refit ? RowSet{} : context.data.validation();
  TrialContext trial{*candidate,  context.data, context.options, std::move(model), job.speed, job.seconds,
                     job.plan,    job.settings, fit_rows,        validation_rows,  directory, package,
                     run.cache(), job.threads,  progress,        cancel,           log};
  TAILOR_TRY(TrialOutcome outcome, candidate->run(trial));
  const std::string fitted_on = refit || context.data.kfold() ? "train+validation" : "train";
  const PackageTarget one_label;
  PackageManifest manifest{.method = job.method,
                           .base = outcome.base,
                           .settings = outcome.settings,
                           .target = one_label,
                           .labels = context.data.label_names(),
                           .text_columns = context.options.text_columns,
                           .text_template = context.options.text_template,
                           .min_confidence = context.options.min_confidence,
                           .data = provenance(context.data, fit_rows, fitted_on, context.options.seed),
                           .trial = run_name(run.root) + "/" + job.id};
  TAILOR_CHECK(close_package(package, manifest, /*include_base_model=*/refit));
  std::uint64_t package_bytes = tree_bytes(package);
  if (!refit && !outcome.base.id.empty()) {
    const fs::path base = base_model_path(package, outcome.base);
    if (base.parent_path() != package) package_bytes += tree_bytes(base);
  }
  if (!refit && outcome.validation.size() > 0) {
    TAILOR_CHECK(save_predictions(directory / "validation.jsonl", outcome.validation, context.data.label_names()));
  }
  double score = 0;
  if (outcome.validation.size() > 0) {
    TAILOR_TRY(const Metric metric, Metric::parse(context.options.metric, context.data.label_names()));
    score = metric.score(outcome.validation.truth, outcome.validation.predicted,
                         static_cast<int>(context.data.label_names().size()));
  }
  const Json json{{"settings", outcome.settings},
                  {"plan", outcome.plan},
                  {"search", search_to_json(outcome.search)},
                  {"notes", outcome.notes},
                  {"trained_bytes", outcome.trained_bytes},
                  {"package_bytes", package_bytes},
                  {"shared_seconds", outcome.shared_seconds},
                  {"seconds", watch.seconds() + outcome.shared_seconds},
                  {"validation_score", score},
                  {"n_validation", outcome.validation.size()},
                  {"fitted_on", fitted_on}};
  return write_json_atomic(directory / (refit ? "refit.json" : "fit.json"), json);
}

/// Answers the job's rows through the package, as `tailor predict` does.
struct Answered {
  Predictions predictions;
  double seconds = 0;
};

Result<Answered> answer_rows(const TrialJob& job, const RunContext& context, Classifier& classifier,
                             const ProgressFn& progress, const CancelToken& cancel) {
  const RowSet rows{job.score_rows};
  const std::vector<std::string> texts = context.data.texts_of(rows);
  const Stopwatch watch;
  TAILOR_TRY(Matrix probabilities, classifier.probabilities(texts, progress, cancel));
  const double seconds = watch.seconds();
  return Answered{make_predictions(rows.ids, context.data.labels_of(rows), std::move(probabilities)), seconds};
}

Status run_score_phase(const TrialJob& job, const RunDirectory& run, const ProgressFn& progress,
                       const CancelToken& cancel) {
  TAILOR_TRY(const RunContext context, open_run(run));
  const fs::path directory = run.trial(job.id);
  const bool refit = job.phase == "score-refit";
  TAILOR_TRY(LoadedPackage package,
             load_package(refit ? run.package() : directory / "package", PredictOptions{.threads = job.threads}));
  TAILOR_TRY(const Answered answered, answer_rows(job, context, *package.classifier, progress, cancel));
  TAILOR_CHECK(save_predictions(directory / (refit ? "refit_test.jsonl" : "test.jsonl"), answered.predictions,
                                context.data.label_names()));
  const Json json{{"n_scored", answered.predictions.size()}, {"score_seconds", answered.seconds}};
  return write_json_atomic(directory / (refit ? "refit_score.json" : "score.json"), json);
}

/// What answering costs: latency of one request (tokenisation included, after warm-up), memory, and the rate of many;
/// and whether the package answers as the fit did. On validation texts, so that the decision may use it.
Status run_probe_phase(const TrialJob& job, const RunDirectory& run, const ProgressFn& progress,
                       const CancelToken& cancel) {
  TAILOR_TRY(const RunContext context, open_run(run));
  const fs::path directory = run.trial(job.id);
  TAILOR_TRY(LoadedPackage package, load_package(directory / "package", PredictOptions{.threads = job.threads}));
  TAILOR_TRY(const Answered answered, answer_rows(job, context, *package.classifier, progress, cancel));
  const std::vector<std::string> texts = context.data.texts_of(RowSet{job.score_rows});
  std::vector<double> milliseconds;
  constexpr std::size_t kWarmUp = 3;
  const std::size_t requests = std::min<std::size_t>(texts.size(), static_cast<std::size_t>(job.latency_requests));
  for (std::size_t i = 0; i < requests + kWarmUp && !texts.empty(); ++i) {
    if (cancel.cancelled()) return Error{ErrorCode::kCancelled, "interrupted", ""};
    const std::size_t at =
        i < kWarmUp ? i % texts.size() : (i - kWarmUp) * texts.size() / requests;  // an even walk over the rows
    const Stopwatch watch;
    TAILOR_TRY(const Matrix one, package.classifier->probabilities(std::span(&texts[at], 1), ProgressFn(), cancel));
    if (i >= kWarmUp) milliseconds.push_back(1000.0 * watch.seconds());
  }
  // Rows whose answer while fitting and through the package can be compared: with k-fold the two are different fits.
  std::size_t compared = 0, same = 0;
  std::error_code ignored;
  if (!context.data.kfold() && fs::exists(directory / "validation.jsonl", ignored)) {
    TAILOR_TRY(const Predictions fitted, load_predictions(directory / "validation.jsonl", context.data.label_names()));
    TAILOR_TRY(const CommonRows common, common_rows(answers_of(fitted), answers_of(answered.predictions)));
    compared = common.rows.size();
    for (std::size_t i = 0; i < compared; ++i) same += common.a[i] == common.b[i] ? 1 : 0;
  }
  const double per_row = texts.empty() ? 0 : answered.seconds / static_cast<double>(texts.size());
  const Json json{{"latency_ms", Json{{"p50", percentile(milliseconds, 50)}, {"p95", percentile(milliseconds, 95)}}},
                  {"seconds_per_row", per_row},
                  {"serve_memory_bytes", usage_so_far().peak_memory_bytes},
                  {"compared_rows", compared},
                  {"same_answers", same}};
  return write_json_atomic(directory / "probe.json", json);
}

}  // namespace

Status run_trial_phase(const TrialJob& job, const ProgressFn& progress, const CancelToken& cancel, Logger& log) {
  const RunDirectory run{job.run};
  if (job.phase == "fit" || job.phase == "refit") return run_fit_phase(job, run, progress, cancel, log);
  if (job.phase == "score" || job.phase == "score-refit") return run_score_phase(job, run, progress, cancel);
  if (job.phase == "probe") return run_probe_phase(job, run, progress, cancel);
  return Error{ErrorCode::kInternal, "unknown phase " + job.phase, ""};
}

Status read_fit_outcome(const RunDirectory& run, TrialRecord& record) {
  TAILOR_TRY(const Json json, read_json(run.trial(record.id) / "fit.json"));
  record.settings = json.at("settings");
  record.plan = json.at("plan");
  record.search = json.at("search");
  record.default_only = record.search.size() <= 1;
  record.notes = json.at("notes").get<std::vector<std::string>>();
  record.trained_bytes = json.at("trained_bytes");
  record.package_bytes = json.at("package_bytes");
  record.train_seconds = json.at("seconds");
  record.validation_score = json.at("validation_score");
  record.n_validation = json.at("n_validation");
  record.fitted_on = json.at("fitted_on");
  return {};
}

Status read_probe_outcome(const RunDirectory& run, TrialRecord& record) {
  TAILOR_TRY(const Json json, read_json(run.trial(record.id) / "probe.json"));
  record.latency_p50_ms = json.at("latency_ms").at("p50");
  record.latency_p95_ms = json.at("latency_ms").at("p95");
  record.serve_memory_bytes = json.at("serve_memory_bytes");
  record.score_seconds_per_row = json.at("seconds_per_row");
  const std::size_t compared = json.at("compared_rows"), same = json.at("same_answers");
  if (same < compared) {
    record.notes.push_back(fmt::format("The package answers {} of {} validation rows otherwise than while fitting.",
                                       compared - same, compared));
  }
  return {};
}

Status read_score_outcome(const RunDirectory& run, TrialRecord& record) {
  TAILOR_TRY(const Json json, read_json(run.trial(record.id) / "score.json"));
  record.n_scored = json.at("n_scored");
  record.score_seconds = json.at("score_seconds");
  return {};
}

}  // namespace tailor
