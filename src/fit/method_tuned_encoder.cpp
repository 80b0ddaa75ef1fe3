/// Encoders tuned by tailor-tune: full fine-tuning with a classification head (Devlin et al., arXiv:1810.04805), LoRA
/// with a head (Hu et al., arXiv:2106.09685), and the output layer alone: their search inside the budget.

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "core/files.h"
#include "core/stopwatch.h"
#include "fit/head_start.h"
#include "fit/method_support.h"
#include "fit/methods.h"
#include "fit/tuned_encoder.h"

namespace tailor {
namespace {

namespace fs = std::filesystem;

constexpr double kStartSeconds = 4;  // starting tailor-tune, loading, writing the result

struct Recipe {
  std::string method;           // of tailor-tune
  double learning_rate;         // start of the search
  std::vector<double> factors;  // of the rate, searched
  double head_learning_rate;    // 0: the same
  double wanted_steps;          // about; decides the epochs
  double max_epochs;
  double flops;  // per parameter of the layers and token, forward and backward
};

Recipe recipe_of(std::string_view method) {
  if (method == "full") return {"full", 2e-4, {0.5, 1, 2.5}, 2e-3, 1200, 20, 6};
  if (method == "lora") return {"lora", 1e-3, {0.5, 1, 2.5}, 2e-3, 1200, 20, 4.4};
  return {"head", 1e-3, {1, 3}, 0, 4000, 20, 2};
}

constexpr double kBatch = 32;
constexpr double kUtilisation = 0.45;  // of the matrix product's peak that training reaches, all things counted
constexpr double kSearchShare = 0.25;  // of the final run's length, for each rate of the search
// A head that starts at logistic regression makes a short training useful: better than none for want of seconds.
constexpr double kLeastEpochs = 0.75;
constexpr double kLeastSearchedEpochs = 1.5;  // with less than that for the final run, it goes before a search

double layer_parameters(const ModelInfo& m) {
  const double embeddings =
      static_cast<double>(m.vocabulary + m.context_length) * static_cast<double>(m.embedding_length);
  return std::max(1e5, static_cast<double>(m.parameters) - embeddings);
}

double tokens_per_second(const TrialContext& context, const Recipe& recipe) {
  return kUtilisation * context.speed.gemm_gflops * 1e9 / (recipe.flops * layer_parameters(context.model->info));
}

double epoch_seconds(const TrialContext& context, const Recipe& recipe, std::size_t rows) {
  if (recipe.method == "head")
    return static_cast<double>(rows) * static_cast<double>(context.data.label_names().size()) * 4e-8 + 0.02;
  return static_cast<double>(rows) * mean_tokens(context) / tokens_per_second(context, recipe);
}

double trunk_seconds(const TrialContext& context, const Recipe& recipe, std::size_t rows) {
  return recipe.method == "head" ? static_cast<double>(rows) * mean_tokens(context) / tokens_per_second(context, recipe)
                                 : 0;
}

double quarters(double epochs) {
  return std::floor(epochs * 4) / 4;  // readable numbers
}

double wanted_epochs(const Recipe& recipe, std::size_t rows) {
  return std::clamp(recipe.wanted_steps * kBatch / static_cast<double>(rows), 3.0, recipe.max_epochs);
}

/// Epochs of the final run, at most `wanted`, for `seconds` of which an epoch takes `epoch`.
double final_epochs(const TrialContext& context, double seconds, double epoch, double wanted) {
  const double finals = final_runs(context);
  const double epochs = (seconds - finals * kStartSeconds) / std::max(epoch * finals, 1e-9);
  return std::max(0.5, quarters(std::clamp(epochs, 0.5, wanted)));
}

/// What the time allows. Where the rate is searched, the epochs of the final run are left open: the search measures
/// what an epoch takes.
Json make_plan(const TrialContext& context, const Recipe& recipe) {
  const std::size_t rows = context.fit_rows.size();
  const std::size_t train =
      context.data.kfold() ? rows - rows / static_cast<std::size_t>(std::max(2, context.data.split.folds)) : rows;
  const double wanted = wanted_epochs(recipe, train);
  std::vector<double> rates;
  for (const double f : recipe.factors) rates.push_back(recipe.learning_rate * f);
  const double epoch = epoch_seconds(context, recipe, train);
  if (recipe.method == "head") {
    // An epoch costs nothing beside the trunk's one pass: every rate runs to its end, and the best run is the result.
    const double one = kStartSeconds + trunk_seconds(context, recipe, rows) + epoch * wanted;
    if (context.seconds < one * (static_cast<double>(rates.size()) + final_runs(context) - 1)) {
      rates = {recipe.learning_rate};
    }
    return Json{{"rates", rates}, {"epochs", wanted}, {"search_epochs", wanted}};
  }
  const double searches = static_cast<double>(recipe.factors.size());
  const double finals = final_runs(context);
  const double with_search = (context.seconds - (searches + finals) * kStartSeconds) /
                             std::max(epoch * (finals + searches * kSearchShare), 1e-9);
  if (with_search >= kLeastSearchedEpochs || wanted <= 2) {
    const double search_epochs = std::clamp(with_search, 1.0, wanted) * kSearchShare;
    return Json{{"rates", rates}, {"search_epochs", std::max(0.25, quarters(search_epochs))}};
  }
  return Json{{"rates", {recipe.learning_rate}}, {"epochs", final_epochs(context, context.seconds, epoch, wanted)}};
}

struct Training {
  TuneRun run;
  double score = 0;
  double epochs = 0;  // of the best step
  Predictions validation;
};

struct TrainSpec {
  double rate;
  double epochs;
  bool evaluate;     // has validation rows
  std::string name;  // of the directory
  std::string stage;
  fs::path head;  // where the head starts; empty: random
};

Result<Training> train(const TrialContext& context, const Recipe& recipe, const ReadyModel& model,
                       const fs::path& tokens, const TrainSpec& spec) {
  Json settings{{"learning_rate", spec.rate}, {"epochs", spec.epochs}, {"batch_size", static_cast<int>(kBatch)}};
  // The head may move faster than weights that only have to move a little.
  if (recipe.head_learning_rate > 0) settings["head_learning_rate"] = std::max(recipe.head_learning_rate, spec.rate);
  Json job{{"format", "tailor-tune-job"},
           {"version", 1},
           {"task", "sequence-classification"},
           {"method", recipe.method},
           {"base", model.gguf.string()},
           {"tokens", tokens.string()},
           {"n_labels", classes_of(context)},
           {"settings", settings},
           {"seed", context.options.seed},
           {"export_merged", true},
           {"metric", context.options.metric == "macro_f1" || context.options.metric.rfind("f1:", 0) == 0 ? "macro_f1"
                                                                                                          : "accuracy"},
           {"evaluate_every_epochs", spec.evaluate ? std::max(1.0, std::floor(spec.epochs / 8)) : 0.0}};
  if (!spec.head.empty()) job["head"] = spec.head.string();
  Training out;
  TAILOR_TRY(out.run, run_tune(job, context.directory / spec.name, context.threads, spec.stage, context.progress,
                               context.cancel));
  if (!spec.evaluate) return out;
  TAILOR_TRY(out.validation,
             read_tune_predictions(context.data, out.run.directory / "validation_predictions.safetensors"));
  out.score = metric_of(context).score(out.validation.truth, out.validation.predicted, classes_of(context));
  return out;
}

Estimate estimate(const TrialContext& context, std::string_view method) {
  const Recipe recipe = recipe_of(method);
  const std::size_t rows = context.data.train().size();
  const double epoch = epoch_seconds(context, recipe, rows);
  const double trunk = trunk_seconds(context, recipe, rows);
  const double epochs = wanted_epochs(recipe, rows);
  const double searches = static_cast<double>(recipe.factors.size());
  const double finals = final_runs(context);
  Estimate e;
  e.fit_seconds = (searches + finals) * (kStartSeconds + trunk) + epoch * epochs * (finals + searches * kSearchShare);
  if (method == "head") e.fit_seconds = (searches + finals - 1) * (kStartSeconds + trunk + epoch * epochs);
  e.min_fit_seconds = std::min(e.fit_seconds, finals * (kStartSeconds + trunk + kLeastEpochs * epoch));
  e.score_seconds_per_row = mean_tokens(context) / embedding_tokens_per_second(context);
  e.refit_seconds = kStartSeconds + trunk + epoch * epochs * 1.18;
  // Weights, gradients and two moments of what is trained; activations of a micro-batch of 4,096 tokens.
  const double parameters = static_cast<double>(context.model->info.parameters);
  const double trained = method == "full" ? 16 * parameters : 6 * parameters;
  e.memory_bytes = static_cast<std::uint64_t>(trained +
                                              4096.0 * static_cast<double>(context.model->info.layers) *
                                                  static_cast<double>(context.model->info.embedding_length) * 4 * 22 +
                                              350e6);
  return e;
}

Result<TrialOutcome> run(TrialContext& context, std::string_view method) {
  const Stopwatch trial;
  const Recipe recipe = recipe_of(method);
  TrialOutcome out;
  TAILOR_TRY(const ReadyModel model, ready_model(context, ModelUse::kTraining));
  TAILOR_TRY(const Tokenizer tokenizer, Tokenizer::load(model.gguf));
  TAILOR_TRY(const EncoderReading reading, encoder_reading(model.gguf, context.options.text_template));
  const TrialRows rows = trial_rows(context, /*max_folds=*/1);
  const auto rows_at = [&](const std::vector<std::size_t>& positions) {
    RowSet set;
    for (const std::size_t p : positions) set.ids.push_back(rows.ids[p]);
    return set;
  };
  const bool searching = !context.settings.has_value();
  TAILOR_TRY(out.plan, begin_plan(context, [&] { return make_plan(context, recipe); }));
  double rate = searching ? 0 : context.settings->at("learning_rate").get<double>();
  double epochs = searching ? out.plan.value("epochs", 0.0) : context.settings->at("epochs").get<double>();
  std::optional<Training> final_run;
  TAILOR_TRY(const ReadyModel served, ready_model(context));
  const auto start_head = [&](const std::vector<std::size_t>& fitted, double c) -> Result<fs::path> {
    const fs::path to = context.directory / "start-head.safetensors";
    TAILOR_TRY(const CachedEmbeddings vectors,
               cached_embeddings(context, served, rows, {.pooling = Pooling::kMean, .normalise = false}));
    const auto at = [&](const std::vector<std::size_t>& positions) {
      return LabelledVectors{gather_rows(vectors.matrix, positions), rows.labels_at(positions)};
    };
    const LabelledVectors held_out = c > 0 ? LabelledVectors{} : at(rows.splits[0].validation);
    TAILOR_TRY(const HeadStart begun, write_head_start(at(fitted), held_out, classes_of(context), c, context.threads,
                                                       context.progress, context.cancel, to));
    out.plan["head_start_c"] = begun.c;
    if (c <= 0) {
      out.plan["head_start_score"] = metric_of(context).score(held_out.labels, begun.predicted, classes_of(context));
      out.shared_seconds = vectors.shared;
    }
    return to;
  };
  if (searching) {
    TAILOR_TRY(const fs::path head, start_head(rows.splits[0].train, 0));
    const auto tokens = context.directory / "tokens.safetensors";
    const TokenParts parts{rows_at(rows.splits[0].train), rows_at(rows.splits[0].validation), {}};
    TAILOR_CHECK(write_token_file(tokens, tokenize_for_encoder(context.data, tokenizer, parts, reading)));
    const auto rates = out.plan.at("rates").get<std::vector<double>>();
    rate = rates.front();
    double best = -1e30;
    double trained_seconds = 0, trained_epochs = 0;  // by the search
    for (std::size_t i = 0; i < rates.size() && rates.size() > 1; ++i) {
      const double search_epochs = out.plan.at("search_epochs");
      const Stopwatch watch;
      TAILOR_TRY(const Training tried, train(context, recipe, model, tokens,
                                             {rates[i], search_epochs, true, fmt::format("search-{}", i),
                                              fmt::format("searching the rate: {:g}", rates[i]), head}));
      const double seconds = watch.seconds();
      for (const char* part : {"wall_seconds", "evaluation_seconds"})
        trained_seconds += tried.run.result.at(part).get<double>();
      trained_epochs += search_epochs;
      out.search.push_back({Json{{"learning_rate", rates[i]}, {"epochs", search_epochs}}, tried.score, seconds,
                            tried.validation.size()});
      const bool better = tried.score > best;
      if (better) {
        best = tried.score;
        rate = rates[i];
      }
      if (epochs > 0 && search_epochs >= epochs) {  // as long as the final run would be: keep the best one
        if (better && final_run) TAILOR_CHECK(remove_tree(final_run->run.directory));
        if (better) {
          out.plan["final_fit_seconds"] = seconds;
          out.validation = tried.validation;
          final_run = tried;
          continue;
        }
      }
      TAILOR_CHECK(remove_tree(tried.run.directory));
    }
    if (!final_run) {
      if (epochs <= 0) {
        epochs = final_epochs(context, context.seconds - trial.seconds(), trained_seconds / trained_epochs,
                              wanted_epochs(recipe, context.fit_rows.size()));
        out.plan["epochs"] = epochs;
        TAILOR_CHECK(keep_plan(context, out.plan));
      }
      const Stopwatch watch;
      TAILOR_TRY(Training chosen, train(context, recipe, model, tokens,
                                        {rate, epochs, true, "final", fmt::format("training at {:g}", rate), head}));
      out.validation = chosen.validation;
      out.plan["final_fit_seconds"] = watch.seconds();
      out.search.push_back({Json{{"learning_rate", rate}, {"epochs", epochs}}, chosen.score,
                            out.plan["final_fit_seconds"].get<double>(), chosen.validation.size()});
      final_run = std::move(chosen);
    }
  }
  if (!searching || context.data.kfold()) {
    // All rows, nothing held out: the settings are fixed.
    const double c = searching ? out.plan.value("head_start_c", 0.0) : context.settings->value("head_start_c", 0.0);
    TAILOR_TRY(const fs::path head, start_head(rows.fit, c));
    const auto tokens = context.directory / "tokens-all.safetensors";
    TAILOR_CHECK(
        write_token_file(tokens, tokenize_for_encoder(context.data, tokenizer, {context.fit_rows, {}, {}}, reading)));
    TAILOR_TRY(Training all,
               train(context, recipe, model, tokens,
                     {rate, epochs, false, searching ? "all" : "refit-run", "training on all rows", head}));
    if (final_run)
      TAILOR_CHECK(remove_tree(final_run->run.directory));  // measured; what is packaged has learnt from all
    final_run = std::move(all);
    TAILOR_CHECK(remove_tree(tokens));
  }
  TAILOR_TRY(TunedPackage made,
             package_tuned_encoder(final_run->run, model, served, TensorType::kF16, context.package));
  out.base = std::move(made.base);
  out.trained_bytes = made.trained_bytes;
  out.settings = Json{{"learning_rate", rate},
                      {"epochs", epochs},
                      {"batch_size", kBatch},
                      {"steps", final_run->run.result.at("steps")},
                      {"trained_parameters", final_run->run.result.at("trained_parameters")}};
  out.settings["head_start_c"] = out.plan.at("head_start_c");
  if (!final_run->run.result.at("excluded_rows").empty()) {
    out.notes.push_back(fmt::format("{} rows were left out of training because their loss was not a number.",
                                    final_run->run.result.at("excluded_rows").size()));
  }
  TAILOR_CHECK(remove_tree(final_run->run.directory));
  TAILOR_CHECK(remove_tree(context.directory / "start-head.safetensors"));
  TAILOR_CHECK(remove_tree(context.directory / "tokens.safetensors"));
  TAILOR_CHECK(end_plan(context));
  out.plan["total_seconds"] = trial.seconds();
  return out;
}

}  // namespace

Estimate estimate_full(const TrialContext& context) {
  return estimate(context, "full");
}
Estimate estimate_lora(const TrialContext& context) {
  return estimate(context, "lora");
}
Estimate estimate_head(const TrialContext& context) {
  return estimate(context, "head");
}
Result<TrialOutcome> run_full(TrialContext& context) {
  return run(context, "full");
}
Result<TrialOutcome> run_lora(TrialContext& context) {
  return run(context, "lora");
}
Result<TrialOutcome> run_head(TrialContext& context) {
  return run(context, "head");
}

}  // namespace tailor
