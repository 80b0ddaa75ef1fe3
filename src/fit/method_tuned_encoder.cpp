/// Encoders tuned by tailor-tune, every method of it by its row in tuned_search.h: estimate, plan and search inside the
/// budget, the final run, and the refit.

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "core/files.h"
#include "core/stopwatch.h"
#include "fit/encoder_training.h"
#include "fit/head_start.h"
#include "fit/method_support.h"
#include "fit/methods.h"
#include "fit/tuned_encoder.h"
#include "fit/tuned_search.h"

namespace tailor {
namespace {

namespace fs = std::filesystem;

constexpr double kStartSeconds = 4;    // starting tailor-tune, loading, writing the result
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

double tokens_per_second(const TrialContext& context, const TunedSearch& search) {
  return kUtilisation * context.speed.gemm_gflops * 1e9 / (search.flops * layer_parameters(context.model->info));
}

double epoch_seconds(const TrialContext& context, const TunedSearch& search, std::size_t rows) {
  if (search.method == "head")
    return static_cast<double>(rows) * static_cast<double>(context.data.label_names().size()) * 4e-8 + 0.02;
  return static_cast<double>(rows) * mean_tokens(context) / tokens_per_second(context, search);
}

double trunk_seconds(const TrialContext& context, const TunedSearch& search, std::size_t rows) {
  return search.method == "head" ? static_cast<double>(rows) * mean_tokens(context) / tokens_per_second(context, search)
                                 : 0;
}

double quarters(double epochs) {
  return std::floor(epochs * 4) / 4;  // readable numbers
}

double wanted_epochs(const TunedSearch& search, std::size_t rows) {
  return std::clamp(search.wanted_steps * kEncoderBatch / static_cast<double>(rows), 3.0, search.most_epochs);
}

/// Epochs of the final run, at most `wanted`, for `seconds` of which an epoch takes `epoch`, and a
/// run `start` beside its epochs.
double final_epochs(const TrialContext& context, double seconds, double epoch, double start, double wanted) {
  const double finals = final_runs(context);
  const double epochs = (seconds - finals * start) / std::max(epoch * finals, 1e-9);
  return std::max(0.5, quarters(std::clamp(epochs, 0.5, wanted)));
}

/// What the time allows. Where the rate is searched, the epochs of the final run are left open: the search measures
/// what an epoch takes.
Json make_plan(const TrialContext& context, const TunedSearch& search) {
  const std::size_t rows = context.fit_rows.size();
  const std::size_t train =
      context.data.kfold() ? rows - rows / static_cast<std::size_t>(std::max(2, context.data.split.folds)) : rows;
  const double wanted = wanted_epochs(search, train);
  std::vector<double> rates = search.rates;
  const double epoch = epoch_seconds(context, search, train);
  if (search.method == "head") {
    // An epoch costs nothing beside the trunk's one pass: every rate runs to its end, and the best run is the result.
    const double one = kStartSeconds + trunk_seconds(context, search, rows) + epoch * wanted;
    if (context.seconds < one * (static_cast<double>(rates.size()) + final_runs(context) - 1)) {
      rates = {search.usual_rate};
    }
    return Json{{"rates", rates}, {"epochs", wanted}, {"search_epochs", wanted}};
  }
  const double searches = static_cast<double>(search.rates.size());
  const double finals = final_runs(context);
  const double with_search = (context.seconds - (searches + finals) * kStartSeconds) /
                             std::max(epoch * (finals + searches * kSearchShare), 1e-9);
  if (with_search >= kLeastSearchedEpochs || wanted <= 2) {
    const double search_epochs = std::clamp(with_search, 1.0, wanted) * kSearchShare;
    return Json{{"rates", rates}, {"search_epochs", std::max(0.25, quarters(search_epochs))}};
  }
  return Json{{"rates", {search.usual_rate}},
              {"epochs", final_epochs(context, context.seconds, epoch, kStartSeconds, wanted)}};
}

}  // namespace

Estimate estimate_tuned_encoder(const TrialContext& context) {
  const TunedSearch& search = *find_tuned_search(context.candidate.method);
  const std::size_t rows = context.data.train().size();
  const double epoch = epoch_seconds(context, search, rows);
  const double trunk = trunk_seconds(context, search, rows);
  const double epochs = wanted_epochs(search, rows);
  const double searches = static_cast<double>(search.rates.size());
  const double finals = final_runs(context);
  Estimate e;
  e.fit_seconds = (searches + finals) * (kStartSeconds + trunk) + epoch * epochs * (finals + searches * kSearchShare);
  if (search.method == "head") e.fit_seconds = (searches + finals - 1) * (kStartSeconds + trunk + epoch * epochs);
  e.min_fit_seconds = std::min(e.fit_seconds, finals * (kStartSeconds + trunk + kLeastEpochs * epoch));
  e.score_seconds_per_row = mean_tokens(context) / embedding_tokens_per_second(context);
  e.refit_seconds = kStartSeconds + trunk + epoch * epochs * 1.18;
  // Weights, gradients and two moments of what is trained; activations of a micro-batch of 4,096 tokens.
  const double parameters = static_cast<double>(context.model->info.parameters);
  e.memory_bytes = static_cast<std::uint64_t>(search.memory * parameters +
                                              4096.0 * static_cast<double>(context.model->info.layers) *
                                                  static_cast<double>(context.model->info.embedding_length) * 4 * 22 +
                                              350e6);
  return e;
}

Result<TrialOutcome> run_tuned_encoder(TrialContext& context) {
  const Stopwatch trial;
  const TunedSearch& search = *find_tuned_search(context.candidate.method);
  const bool unit_vectors = search.method == "contrastive";  // read by the head
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
  TAILOR_TRY(out.plan, begin_plan(context, [&] { return make_plan(context, search); }));
  double rate = searching ? 0 : context.settings->at("learning_rate").get<double>();
  double epochs = searching ? out.plan.value("epochs", 0.0) : context.settings->at("epochs").get<double>();
  std::optional<EncoderTraining> final_run;
  TAILOR_TRY(const ReadyModel served, ready_model(context));
  const auto start_head = [&](const std::vector<std::size_t>& fitted, double c) -> Result<fs::path> {
    const fs::path to = context.directory / "start-head.safetensors";
    TAILOR_TRY(const CachedEmbeddings vectors,
               cached_embeddings(context, served, rows, {.pooling = Pooling::kMean, .normalise = unit_vectors}));
    const auto at = [&](const std::vector<std::size_t>& positions) {
      return LabelledVectors{gather_rows(vectors.matrix, positions), rows.labels_at(positions)};
    };
    const LabelledVectors held_out = c > 0 ? LabelledVectors{} : at(rows.splits[0].validation);
    TAILOR_TRY(const HeadStart begun, write_head_start(at(fitted), held_out, classes_of(context), c, context.threads,
                                                       context.progress, context.cancel, unit_vectors, to));
    out.plan["head_start_c"] = begun.c;
    if (c <= 0) {
      out.plan["head_start_score"] = metric_of(context).score(held_out.labels, begun.predicted, classes_of(context));
      out.shared_seconds = vectors.shared;
    }
    return to;
  };
  const auto rows_in = [&](const std::vector<std::size_t>& fitted, const std::vector<std::size_t>& held_out,
                           const char* name) -> Result<EncoderRows> {
    EncoderRows in{rows, fitted, held_out, context.directory / name};
    const TokenParts parts{rows_at(fitted), rows_at(held_out), {}};
    TokenFileWriter writer(in.tokens);
    TAILOR_CHECK(tokenize_for_encoder(context.data, tokenizer, parts, reading, context.threads,
                                      [&](TokenFile& block) { return writer.append(block); }));
    TAILOR_CHECK(writer.finish());
    return in;
  };
  if (searching) {
    TAILOR_TRY(const fs::path head, start_head(rows.splits[0].train, 0));
    TAILOR_TRY(const EncoderRows in, rows_in(rows.splits[0].train, rows.splits[0].validation, "tokens.safetensors"));
    const auto rates = out.plan.at("rates").get<std::vector<double>>();
    rate = rates.front();
    double best = -1e30;
    double searched_seconds = 0, trained_seconds = 0, trained_epochs = 0, searches = 0;
    for (std::size_t i = 0; i < rates.size() && rates.size() > 1; ++i) {
      const double search_epochs = out.plan.at("search_epochs");
      const Stopwatch watch;
      TAILOR_TRY(EncoderTraining tried, train_encoder(context, search, model, in,
                                                      {.rate = rates[i],
                                                       .epochs = search_epochs,
                                                       .evaluate = true,
                                                       .name = fmt::format("search-{}", i),
                                                       .stage = fmt::format("searching the rate: {:g}", rates[i]),
                                                       .head = head}));
      const double seconds = watch.seconds();
      for (const char* part : {"wall_seconds", "evaluation_seconds"})
        trained_seconds += tried.run.result.at(part).get<double>();
      trained_epochs += search_epochs;
      searched_seconds += seconds;
      searches += 1;
      out.search.push_back({Json{{"learning_rate", rates[i]}, {"epochs", search_epochs}}, tried.score, seconds,
                            tried.validation.size()});
      const bool better = tried.score > best;
      if (better) {
        best = tried.score;
        rate = rates[i];
      }
      if (epochs > 0 && search_epochs >= epochs) {  // as long as the final run would be: keep the best one
        if (better && final_run) TAILOR_CHECK(remove_tree(final_run->directory));
        if (better) {
          out.plan["final_fit_seconds"] = seconds;
          out.validation = tried.validation;
          final_run = std::move(tried);
          continue;
        }
      }
      TAILOR_CHECK(remove_tree(tried.directory));
    }
    if (!final_run) {
      if (epochs <= 0) {
        const double start = std::max(kStartSeconds, (searched_seconds - trained_seconds) / searches);
        epochs = final_epochs(context, context.seconds - trial.seconds(), trained_seconds / trained_epochs, start,
                              wanted_epochs(search, context.fit_rows.size()));
        out.plan["epochs"] = epochs;
        TAILOR_CHECK(keep_plan(context, out.plan));
      }
      const Stopwatch watch;
      TAILOR_TRY(EncoderTraining chosen, train_encoder(context, search, model, in,
                                                       {.rate = rate,
                                                        .epochs = epochs,
                                                        .evaluate = true,
                                                        .name = "final",
                                                        .stage = fmt::format("training at {:g}", rate),
                                                        .head = head}));
      out.validation = chosen.validation;
      out.plan["final_fit_seconds"] = watch.seconds();
      out.search.push_back({Json{{"learning_rate", rate}, {"epochs", epochs}}, chosen.score,
                            out.plan["final_fit_seconds"].get<double>(), chosen.validation.size()});
      final_run = std::move(chosen);
    }
  }
  if (!searching || context.data.kfold()) {
    // All rows, nothing held out: the settings are fixed.
    const Json& fixed = searching ? out.plan : *context.settings;
    TAILOR_TRY(const fs::path head, start_head(rows.fit, fixed.value("head_start_c", 0.0)));
    const std::vector<std::size_t> none;
    TAILOR_TRY(const EncoderRows in, rows_in(rows.fit, none, "tokens-all.safetensors"));
    TAILOR_TRY(EncoderTraining all, train_encoder(context, search, model, in,
                                                  {.rate = rate,
                                                   .epochs = epochs,
                                                   .name = searching ? "all" : "refit-run",
                                                   .stage = "training on all rows",
                                                   .head = head}));
    if (final_run) TAILOR_CHECK(remove_tree(final_run->directory));  // measured; what is packaged has learnt from all
    final_run = std::move(all);
    TAILOR_CHECK(remove_tree(in.tokens));
  }
  TAILOR_TRY(TunedPackage made,
             package_tuned_encoder(final_run->run, model, served, TensorType::kF16, context.package));
  out.base = std::move(made.base);
  out.trained_bytes = made.trained_bytes;
  out.settings = Json{{"learning_rate", rate},
                      {"epochs", epochs},
                      {"batch_size", kEncoderBatch},
                      {"steps", final_run->run.result.at("steps")},
                      {"trained_parameters", final_run->run.result.at("trained_parameters")}};
  out.settings["head_start_c"] = out.plan.at("head_start_c");
  if (!final_run->run.result.at("excluded_rows").empty()) {
    out.notes.push_back(fmt::format("{} rows were left out of training because their loss was not a number.",
                                    final_run->run.result.at("excluded_rows").size()));
  }
  TAILOR_CHECK(remove_tree(final_run->directory));
  TAILOR_CHECK(remove_tree(context.directory / "start-head.safetensors"));
  TAILOR_CHECK(remove_tree(context.directory / "tokens.safetensors"));
  TAILOR_CHECK(end_plan(context));
  out.plan["total_seconds"] = trial.seconds();
  return out;
}

}  // namespace tailor
