/// Decoders tuned on answer tokens, "instruction, message, answer", by every method of tailor-tune that has a row in
/// tuned_search.h; labels are scored as for zero-shot prompting, through what will serve.

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "core/files.h"
#include "core/stopwatch.h"
#include "fit/method_support.h"
#include "fit/methods.h"
#include "fit/tune_methods.h"
#include "fit/tuned_decoder.h"
#include "fit/tuned_search.h"

namespace tailor {
namespace {

namespace fs = std::filesystem;

constexpr double kStartSeconds = 8;
constexpr double kUtilisation = 0.5;  // of the matrix product's peak that a step reaches
constexpr double kBatch = 8;
constexpr std::size_t kValidationRows = 200;
constexpr double kSearchShare = 0.07;          // of the final run's steps, for each rate
constexpr double kWholeScores = 2.5;           // times what the best label alone takes
constexpr double kLeastSearchedEpochs = 0.75;  // with less than that for the final run, it goes before a search

const TunedSearch& search_of(const TrialContext& context) {
  return *find_tuned_search(context.candidate.method);
}

double epoch_seconds(const TrialContext& context, std::size_t rows) {
  const ModelInfo& m = context.model->info;
  const double embeddings = static_cast<double>(m.vocabulary) * static_cast<double>(m.embedding_length);
  const double layers = std::max(1e6, static_cast<double>(m.parameters) - embeddings);
  const double tokens = mean_tokens(context) + 8;  // message, cue and answer; the instruction is shared by the step
  const double answer = 5;                         // tokens whose logits are needed
  const double flops = tokens * search_of(context).flops * layers + answer * 6 * embeddings;
  return static_cast<double>(rows) * flops / (kUtilisation * context.speed.gemm_gflops * 1e9);
}

/// One message through the model with all labels scored, as for zero-shot prompting.
double score_seconds(const TrialContext& context) {
  const double labels = static_cast<double>(context.data.label_names().size());
  const double untouched = (mean_tokens(context) + 6 + 1.9 * labels) / embedding_tokens_per_second(context) + 0.002;
  return search_of(context).answer_cost * untouched;
}

double twentieths(double epochs) {
  return std::floor(epochs * 20) / 20;  // readable numbers
}

/// What the time allows. Where the rate is searched, the epochs of the final run are left open: the search measures
/// what a step takes.
Json make_plan(const TrialContext& context, std::size_t validation) {
  const auto rows = static_cast<double>(context.fit_rows.size());
  const double epoch = epoch_seconds(context, context.fit_rows.size());
  const double finals = final_runs(context);
  const std::size_t asked = std::min(validation, kValidationRows);
  const double scoring = score_seconds(context) * static_cast<double>(asked);
  const TunedSearch& search = search_of(context);
  const std::vector<double>& rates = search.rates;
  const auto epochs_with = [&](double searches) {
    const double epochs =
        (context.seconds - (finals + searches) * kStartSeconds - (1 + searches / kWholeScores) * scoring) /
        (epoch * (finals + searches * kSearchShare));
    return std::min(epochs, search_of(context).most_epochs);
  };
  const double searched = epochs_with(static_cast<double>(rates.size()));
  if (searched < kLeastSearchedEpochs) {
    return Json{{"rates", {search.usual_rate}},
                {"epochs", std::max(0.1, twentieths(epochs_with(0)))},
                {"validation_rows", asked}};
  }
  return Json{{"rates", rates},
              {"search_steps", std::max(10.0, std::floor(searched * kSearchShare * rows / kBatch))},
              {"validation_rows", asked}};
}

Status write_rows(const TrialContext& context, const ReadyModel& base, const RowSet& rows, const fs::path& tokens) {
  TokenFileWriter writer(tokens);
  TAILOR_CHECK(tokenize_for_decoder(context.data, base, {rows, {}, {}}, context.threads,
                                    [&](TokenFile& block) { return writer.append(block); }));
  return writer.finish();
}

Result<TuneRun> train(const TrialContext& context, const ReadyModel& base, const fs::path& tokens, double rate,
                      double epochs, double max_steps, const std::string& name, const std::string& stage) {
  Json settings{{"learning_rate", rate}, {"epochs", epochs}, {"batch_size", static_cast<int>(kBatch)}};
  if (max_steps > 0) settings["max_steps"] = static_cast<std::int64_t>(max_steps);
  const Json job{{"format", "tailor-tune-job"},     {"version", 1},
                 {"task", "causal-lm-labels"},      {"method", search_of(context).method},
                 {"base", base.gguf.string()},      {"tokens", tokens.string()},
                 {"n_labels", classes_of(context)}, {"settings", settings},
                 {"seed", context.options.seed},    {"evaluate_every_epochs", 0.0}};
  return run_tune(job, context.directory / name, context.threads, stage, context.progress, context.cancel);
}

/// The metric on rows it was not trained on, by the best label alone.
Result<double> score_of_best(const TrialContext& context, PromptClassifier& classifier, const RowSet& asked) {
  const auto texts = context.data.texts_of(asked);
  TAILOR_TRY(const std::vector<BestLabel> best, classifier.best(texts, {}, context.progress, context.cancel));
  std::vector<int> predicted;
  for (const BestLabel& b : best) predicted.push_back(b.label);
  return metric_of(context).score(context.data.labels_of(asked), predicted, classes_of(context));
}

/// The probabilities of all labels.
Result<Predictions> predictions_on(const TrialContext& context, PromptClassifier& classifier, const RowSet& asked) {
  const auto texts = context.data.texts_of(asked);
  TAILOR_TRY(Matrix p, classifier.classify(texts, {}, context.progress, context.cancel));
  return make_predictions(asked.ids, context.data.labels_of(asked), std::move(p));
}

}  // namespace

Estimate estimate_tuned_decoder(const TrialContext& context) {
  const std::size_t rows = context.data.train().size();
  const double epoch = epoch_seconds(context, rows);
  const double scoring = score_seconds(context) * static_cast<double>(kValidationRows);
  const double finals = final_runs(context);
  Estimate e;
  e.fit_seconds =
      4 * kStartSeconds + 4 * scoring + epoch * search_of(context).most_epochs * (finals + 3 * kSearchShare);
  e.min_fit_seconds = std::min(e.fit_seconds, finals * kStartSeconds + scoring + finals * 0.5 * epoch);
  e.score_seconds_per_row = score_seconds(context);
  e.refit_seconds = kStartSeconds + epoch * search_of(context).most_epochs * 1.18;
  e.memory_bytes =
      static_cast<std::uint64_t>(search_of(context).memory * static_cast<double>(context.model->info.parameters)) +
      500'000'000;
  return e;
}

Result<TrialOutcome> run_tuned_decoder(TrialContext& context) {
  const Stopwatch trial;
  TrialOutcome out;
  TAILOR_TRY(const ReadyModel model, ready_model(context));  // what serves
  ReadyModel base = model;                                   // what is trained on
  TAILOR_TRY(const TuneMethod method, find_tune_method(std::string(search_of(context).method)));
  if (method.own_blocks) {
    TAILOR_TRY(base, ready_model(context, ModelUse::kTraining));
  }
  const TrialRows rows = trial_rows(context, /*max_folds=*/1);
  const bool searching = !context.settings.has_value();
  double rate = searching ? 0 : context.settings->at("learning_rate").get<double>();
  double epochs = searching ? 0 : context.settings->at("epochs").get<double>();
  out.plan = context.plan.value_or(Json::object());
  std::optional<TuneRun> final_run;
  std::optional<PromptClassifier> served;
  if (searching) {
    RowSet train_rows;
    for (const std::size_t p : rows.splits[0].train) train_rows.ids.push_back(rows.ids[p]);
    RowSet validation;
    for (const std::size_t p : rows.splits[0].validation) validation.ids.push_back(rows.ids[p]);
    TAILOR_TRY(out.plan, begin_plan(context, [&] { return make_plan(context, validation.size()); }));
    const RowSet asked =
        stratified_sample(context.data, validation, out.plan.at("validation_rows"), context.options.seed + 2);
    const auto tokens = context.directory / "tokens.safetensors";
    TAILOR_CHECK(write_rows(context, base, train_rows, tokens));
    const auto rates = out.plan.at("rates").get<std::vector<double>>();
    epochs = out.plan.value("epochs", 0.0);
    rate = rates.front();
    double best = -1e30;
    double training = 0, steps = 0, scoring = 0;  // seconds and steps of the search
    for (std::size_t i = 0; i < rates.size() && rates.size() > 1; ++i) {
      const Stopwatch watch;
      TAILOR_TRY(const TuneRun tried,
                 train(context, base, tokens, rates[i], search_of(context).most_epochs, out.plan.at("search_steps"),
                       fmt::format("search-{}", i), fmt::format("searching the rate: {:g}", rates[i])));
      const Stopwatch after_training;
      const fs::path as_served = tried.directory / "served";
      TAILOR_CHECK(make_directories(as_served));
      TAILOR_TRY(PromptClassifier classifier,
                 load_tuned_decoder(context.data, model, tried, as_served, context.threads));
      TAILOR_TRY(const double score, score_of_best(context, classifier, asked));
      const double seconds = watch.seconds();
      training += tried.result.at("wall_seconds").get<double>();
      steps += tried.result.at("steps").get<double>();
      scoring = kWholeScores * after_training.seconds();
      out.search.push_back(
          {Json{{"learning_rate", rates[i]}, {"steps", out.plan.at("search_steps")}}, score, seconds, asked.size()});
      if (score > best) {
        best = score;
        rate = rates[i];
      }
      TAILOR_CHECK(remove_tree(tried.directory));
    }
    if (epochs <= 0) {
      const double finals = final_runs(context);
      const double left = context.seconds - trial.seconds() - scoring - finals * kStartSeconds;
      const double epoch = training / steps * static_cast<double>(context.fit_rows.size()) / kBatch;
      epochs = std::max(0.1, twentieths(std::min(search_of(context).most_epochs, left / (finals * epoch))));
      out.plan["epochs"] = epochs;
      TAILOR_CHECK(keep_plan(context, out.plan));
    }
    const Stopwatch watch;
    TAILOR_TRY(TuneRun chosen,
               train(context, base, tokens, rate, epochs, 0, "final", fmt::format("training at {:g}", rate)));
    out.plan["final_fit_seconds"] = watch.seconds();
    TAILOR_TRY(PromptClassifier classifier,
               load_tuned_decoder(context.data, model, chosen, context.package, context.threads));
    TAILOR_TRY(out.validation, predictions_on(context, classifier, asked));
    served = std::move(classifier);
    const double score = metric_of(context).score(out.validation.truth, out.validation.predicted, classes_of(context));
    out.search.push_back({Json{{"learning_rate", rate}, {"epochs", epochs}}, score,
                          out.plan["final_fit_seconds"].get<double>(), asked.size()});
    final_run = std::move(chosen);
    TAILOR_CHECK(remove_tree(tokens));
  }
  if (!searching || context.data.kfold()) {
    const auto tokens = context.directory / "tokens-all.safetensors";
    TAILOR_CHECK(write_rows(context, base, context.fit_rows, tokens));
    TAILOR_TRY(TuneRun all,
               train(context, base, tokens, rate, epochs, 0, searching ? "all" : "refit-run", "training on all rows"));
    TAILOR_CHECK(remove_tree(tokens));
    served.reset();  // before its file is replaced
    TAILOR_TRY(PromptClassifier classifier,
               load_tuned_decoder(context.data, model, all, context.package, context.threads));
    served = std::move(classifier);
    if (final_run) TAILOR_CHECK(remove_tree(final_run->directory));  // measured; what is packaged has learnt from all
    final_run = std::move(all);
  }
  TAILOR_TRY(TunedPackage made, package_tuned_decoder(*final_run, model, *served, context.package));
  out.base = std::move(made.base);
  out.trained_bytes = made.trained_bytes;
  out.settings = Json{{"learning_rate", rate},
                      {"epochs", epochs},
                      {"batch_size", kBatch},
                      {"steps", final_run->result.at("steps")},
                      {"trained_parameters", final_run->result.at("trained_parameters")}};
  TAILOR_CHECK(remove_tree(final_run->directory));
  TAILOR_CHECK(end_plan(context));
  return out;
}

}  // namespace tailor
