/// LoRA of a decoder on answer tokens: "instruction, message, answer" (Hu et al., arXiv:2106.09685). Trained by
/// tailor-tune on the very file that will carry the adapter, served by llama.cpp with the adapter beside it; labels are
/// scored as for zero-shot prompting.

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>

#include "core/files.h"
#include "core/token_file.h"
#include "fit/method_support.h"
#include "fit/methods.h"
#include "fit/tune_process.h"
#include "infer/label_scorer.h"
#include "prompt/prompt_classifier.h"

namespace tailor {
namespace {

namespace fs = std::filesystem;

constexpr const char* kAdapterFile = "adapter.gguf";
constexpr double kStartSeconds = 8;
constexpr double kUtilisation = 0.5;  // of the matrix product's peak that a step reaches
constexpr double kBatch = 8;
constexpr double kWantedEpochs = 2;
constexpr std::size_t kValidationRows = 200;
constexpr double kSearchShare = 0.07;  // of the final run's steps, for each rate

double epoch_seconds(const TrialContext& context, std::size_t rows) {
  const ModelInfo& m = context.model->info;
  const double embeddings = static_cast<double>(m.vocabulary) * static_cast<double>(m.embedding_length);
  const double layers = std::max(1e6, static_cast<double>(m.parameters) - embeddings);
  const double tokens = mean_tokens(context) + 8;  // message, cue and answer; the instruction is shared by the step
  const double answer = 5;                         // tokens whose logits are needed
  const double flops = tokens * 4.4 * layers + answer * 6 * embeddings;
  return static_cast<double>(rows) * flops / (kUtilisation * context.speed.gemm_gflops * 1e9);
}

/// One message through the model with all labels scored, as for zero-shot prompting.
double score_seconds(const TrialContext& context) {
  const double labels = static_cast<double>(context.data.label_names().size());
  return (mean_tokens(context) + 6 + 1.9 * labels) / embedding_tokens_per_second(context) + 0.002;
}

Json make_plan(const TrialContext& context, std::size_t validation) {
  const std::size_t rows = context.fit_rows.size();
  const double epoch = epoch_seconds(context, rows);
  const double finals = context.data.kfold() ? 2 : 1;
  const std::size_t asked = std::min(validation, kValidationRows);
  const double scoring = score_seconds(context) * static_cast<double>(asked);
  std::vector<double> rates{2e-4, 5e-4, 1e-3};
  const auto epochs_with = [&](double searches) {
    return (context.seconds - (finals + searches) * kStartSeconds - (1 + searches) * scoring) /
           (epoch * (finals + searches * kSearchShare));
  };
  double epochs = epochs_with(3);
  if (epochs < 0.75) {
    rates = {5e-4};
    epochs = epochs_with(0);
  }
  epochs = std::clamp(std::floor(epochs * 20) / 20, 0.1, kWantedEpochs);
  return Json{{"rates", rates},
              {"epochs", epochs},
              {"search_steps", std::max(10.0, std::floor(epochs * kSearchShare * static_cast<double>(rows) / kBatch))},
              {"validation_rows", asked}};
}

PromptSettings prompt_settings() {
  PromptSettings s;
  s.prompt.end = LabelEnd::kEndOfTurn;  // the end of the answer is always learnt
  return s;
}

/// Prompts of the rows, and the answers of the labels, in the tokens that serving will use.
Result<TokenFile> tokenize(const TrialContext& context, const ReadyModel& model,
                           const std::vector<std::uint32_t>& train) {
  TAILOR_TRY(const LabelScorer scorer, LabelScorer::load(model.gguf, {.threads = 1}));
  TAILOR_TRY(const PromptBuilder builder,
             PromptBuilder::make(scorer.tokenizer(), "", scorer.max_context(), prompt_settings().prompt,
                                 readable_labels(context.data.label_names())));
  TokenFile file;
  file.n_labels = classes_of(context);
  file.vocab_size = scorer.vocabulary();
  for (const auto& answer : builder.labels()) file.add_label(answer);
  for (const auto id : train) {
    TAILOR_TRY(const TokenList tokens, builder.prompt(context.data.dataset.texts[id], {}));
    file.add_row(tokens, context.data.dataset.labels[id], TokenPart::kTrain, id);
  }
  return file;
}

Result<TuneRun> train(const TrialContext& context, const ReadyModel& model, const fs::path& tokens, double rate,
                      double epochs, double max_steps, const std::string& name, const std::string& stage) {
  Json settings{{"learning_rate", rate}, {"epochs", epochs}, {"batch_size", static_cast<int>(kBatch)}};
  if (max_steps > 0) settings["max_steps"] = static_cast<std::int64_t>(max_steps);
  const Json job{{"format", "tailor-tune-job"},     {"version", 1},
                 {"task", "causal-lm-labels"},      {"method", "lora"},
                 {"base", model.gguf.string()},     {"tokens", tokens.string()},
                 {"n_labels", classes_of(context)}, {"settings", settings},
                 {"seed", context.options.seed},    {"evaluate_every_epochs", 0.0}};
  return run_tune(job, context.directory / name, context.threads, stage, context.progress, context.cancel);
}

struct Scored {
  Predictions predictions;
  Calibration calibration;
  double score = 0;
};

/// The adapter as it will be served, on rows it was not trained on.
Result<Scored> score_adapter(const TrialContext& context, const ReadyModel& model, const fs::path& adapter,
                             const RowSet& asked) {
  TAILOR_TRY(LabelScorer scorer, LabelScorer::load(model.gguf, {.threads = context.threads, .adapter = adapter}));
  TAILOR_TRY(PromptClassifier classifier,
             PromptClassifier::make(std::move(scorer), prompt_settings(), context.data.label_names(), {}));
  const auto texts = context.data.texts_of(asked);
  const auto truth = context.data.labels_of(asked);
  TAILOR_TRY(const std::vector<LabelScores> raw, classifier.score(texts, {}, context.progress, context.cancel));
  Matrix p(texts.size(), context.data.label_names().size());
  for (std::size_t i = 0; i < texts.size(); ++i) {
    const auto row = softmax(raw[i]);
    std::copy(row.begin(), row.end(), p.row(i).begin());
  }
  Scored out{make_predictions(asked.ids, truth, std::move(p)), {}, 0};
  out.score = metric_of(context).score(out.predictions.truth, out.predictions.predicted, classes_of(context));
  return out;
}

}  // namespace

Estimate estimate_lora_decoder(const TrialContext& context) {
  const std::size_t rows = context.data.train().size();
  const double epoch = epoch_seconds(context, rows);
  const double scoring = score_seconds(context) * static_cast<double>(kValidationRows);
  const double finals = context.data.kfold() ? 2 : 1;
  Estimate e;
  e.fit_seconds = 4 * kStartSeconds + 4 * scoring + epoch * kWantedEpochs * (finals + 3 * kSearchShare);
  e.min_fit_seconds = std::min(e.fit_seconds, finals * kStartSeconds + scoring + finals * 0.5 * epoch);
  e.score_seconds_per_row = score_seconds(context);
  e.refit_seconds = kStartSeconds + epoch * kWantedEpochs * 1.18;
  e.memory_bytes = static_cast<std::uint64_t>(4.6 * static_cast<double>(context.model->info.parameters)) + 500'000'000;
  return e;
}

Result<TrialOutcome> run_lora_decoder(TrialContext& context) {
  TrialOutcome out;
  TAILOR_TRY(const ReadyModel model, ready_model(context));
  const TrialRows rows = trial_rows(context, /*max_folds=*/1);
  const bool searching = !context.settings.has_value();
  double rate = searching ? 0 : context.settings->at("learning_rate").get<double>();
  double epochs = searching ? 0 : context.settings->at("epochs").get<double>();
  out.plan = context.plan.value_or(Json::object());
  std::optional<TuneRun> final_run;
  if (searching) {
    std::vector<std::uint32_t> train_ids;
    for (const std::size_t p : rows.splits[0].train) train_ids.push_back(rows.ids[p]);
    RowSet validation;
    for (const std::size_t p : rows.splits[0].validation) validation.ids.push_back(rows.ids[p]);
    if (!context.plan) out.plan = make_plan(context, validation.size());
    const RowSet asked =
        stratified_sample(context.data, validation, out.plan.at("validation_rows"), context.options.seed + 2);
    const auto tokens = context.directory / "tokens.safetensors";
    TAILOR_TRY(const TokenFile file, tokenize(context, model, train_ids));
    TAILOR_CHECK(write_token_file(tokens, file));
    const auto rates = out.plan.at("rates").get<std::vector<double>>();
    epochs = out.plan.at("epochs");
    rate = rates.front();
    double best = -1e30;
    for (std::size_t i = 0; i < rates.size() && rates.size() > 1; ++i) {
      const auto begin = std::chrono::steady_clock::now();
      TAILOR_TRY(const TuneRun tried,
                 train(context, model, tokens, rates[i], epochs, out.plan.at("search_steps"),
                       fmt::format("search-{}", i), fmt::format("searching the rate: {:g}", rates[i])));
      TAILOR_TRY(const Scored scored, score_adapter(context, model, tried.directory / kAdapterFile, asked));
      const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
      out.search.push_back({Json{{"learning_rate", rates[i]}, {"steps", out.plan.at("search_steps")}}, scored.score,
                            seconds, asked.size()});
      if (scored.score > best) {
        best = scored.score;
        rate = rates[i];
      }
      TAILOR_CHECK(remove_tree(tried.directory));
    }
    const auto begin = std::chrono::steady_clock::now();
    TAILOR_TRY(TuneRun chosen,
               train(context, model, tokens, rate, epochs, 0, "final", fmt::format("training at {:g}", rate)));
    out.plan["final_fit_seconds"] = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    TAILOR_TRY(Scored scored, score_adapter(context, model, chosen.directory / kAdapterFile, asked));
    out.search.push_back({Json{{"learning_rate", rate}, {"epochs", epochs}}, scored.score,
                          out.plan["final_fit_seconds"].get<double>(), asked.size()});
    out.validation = std::move(scored.predictions);
    final_run = std::move(chosen);
    TAILOR_CHECK(remove_tree(tokens));
  }
  if (!searching || context.data.kfold()) {
    const auto tokens = context.directory / "tokens-all.safetensors";
    TAILOR_TRY(const TokenFile file, tokenize(context, model, context.fit_rows.ids));
    TAILOR_CHECK(write_token_file(tokens, file));
    TAILOR_TRY(TuneRun all,
               train(context, model, tokens, rate, epochs, 0, searching ? "all" : "refit-run", "training on all rows"));
    final_run = std::move(all);
    TAILOR_CHECK(remove_tree(tokens));
  }
  TAILOR_CHECK(tailor::copy_file(final_run->directory / kAdapterFile, context.package / kAdapterFile));
  TAILOR_CHECK(make_directories(context.package / "adapter"));
  for (const char* name : {"adapter_config.json", "adapter_model.safetensors"}) {
    TAILOR_CHECK(tailor::copy_file(final_run->directory / name, context.package / "adapter" / name));
  }
  TAILOR_TRY(LabelScorer scorer, LabelScorer::load(model.gguf, {.threads = context.threads}));
  TAILOR_TRY(PromptClassifier classifier,
             PromptClassifier::make(std::move(scorer), prompt_settings(), context.data.label_names(), {}));
  TAILOR_CHECK(classifier.save(context.package));
  out.base = model.base;
  out.trained_bytes = tree_bytes(context.package / kAdapterFile);
  out.settings = Json{{"learning_rate", rate},
                      {"epochs", epochs},
                      {"batch_size", kBatch},
                      {"steps", final_run->result.at("steps")},
                      {"trained_parameters", final_run->result.at("trained_parameters")}};
  TAILOR_CHECK(remove_tree(final_run->directory));
  return out;
}

}  // namespace tailor
