#include "fit/encoder_training.h"

#include <algorithm>
#include <cmath>

#include "core/files.h"
#include "fit/head_start.h"

namespace tailor {
namespace {

namespace fs = std::filesystem;

constexpr double kUsualC = 10;  // of a regression that no row can be held out for
constexpr const char* kServedFile = "served.gguf";
constexpr const char* kTrainedFile = "trained.gguf";

Json job_of(const TrialContext& context, std::string_view method, const ReadyModel& base, const fs::path& tokens) {
  const std::string& metric = context.options.metric;
  return Json{{"format", "tailor-tune-job"},
              {"version", 1},
              {"task", "sequence-classification"},
              {"method", method},
              {"base", base.gguf.string()},
              {"tokens", tokens.string()},
              {"n_labels", classes_of(context)},
              {"seed", context.options.seed},
              {"export_merged", true},
              {"metric", metric == "macro_f1" || metric.rfind("f1:", 0) == 0 ? "macro_f1" : "accuracy"},
              {"evaluate_every_epochs", 0.0}};
}

Json settings_of(const TunedSearch& search, const EncoderTrainSpec& spec) {
  Json settings{{"learning_rate", spec.rate}, {"epochs", spec.epochs}, {"batch_size", kEncoderBatch}};
  // The head may move faster than weights that only have to move a little.
  if (search.head_rate > 0) settings["head_learning_rate"] = std::max(search.head_rate, spec.rate);
  return settings;
}

double evaluations(const EncoderTrainSpec& spec) {
  return spec.evaluate ? std::max(1.0, std::floor(spec.epochs / 8)) : 0.0;
}

Status read_validation(const TrialContext& context, const EncoderTrainSpec& spec, EncoderTraining& out) {
  if (!spec.evaluate) return {};
  TAILOR_TRY(out.validation,
             read_tune_predictions(context.data, out.run.directory / "validation_predictions.safetensors"));
  out.score = metric_of(context).score(out.validation.truth, out.validation.predicted, classes_of(context));
  return {};
}

/// The encoder first; the regression on its vectors sees it as its untouched base.
Result<EncoderTraining> contrast(const TrialContext& context, const TunedSearch& search, const ReadyModel& base,
                                 const EncoderRows& rows, const EncoderTrainSpec& spec) {
  EncoderTraining out;
  out.directory = context.directory / spec.name;
  Json job = job_of(context, search.method, base, rows.tokens);
  job["settings"] = settings_of(search, spec);
  job["evaluate_every_epochs"] = evaluations(spec);
  TAILOR_TRY(const TuneRun run, run_tune(job, out.directory / "contrastive", context.threads, spec.stage,
                                         context.progress, context.cancel));
  out.figures = run.result;
  const fs::path weights = run.directory / kTrainedWeights;
  const auto tuned = [&](const char* name, TensorType type, ReadyModel& model) -> Status {
    model.gguf = fs::absolute(out.directory / name);
    model.base = tuned_base(base.base, model.gguf.string());
    return write_tuned_gguf(base.gguf, weights, type, model.gguf);
  };
  TAILOR_CHECK(tuned(kServedFile, TensorType::kF16, out.served));
  TAILOR_CHECK(tuned(kTrainedFile, TensorType::kF32, out.trained_on));
  TAILOR_TRY(Embedder embedder, Embedder::load(out.served.gguf, {.threads = context.threads,
                                                                 .pooling = Pooling::kMean,
                                                                 .normalise = true,
                                                                 .max_tokens = static_cast<int>(kEncoderTokens),
                                                                 .pairs = makes_pairs(context.options.text_template)}));
  const auto vectors = [&](const std::vector<std::size_t>& positions) -> Result<LabelledVectors> {
    std::vector<std::string> texts;
    for (const std::size_t p : positions) texts.push_back(rows.rows.texts[p]);
    TAILOR_TRY(Matrix x, embedder.embed(texts, context.progress, context.cancel));
    return LabelledVectors{std::move(x), rows.rows.labels_at(positions)};
  };
  TAILOR_TRY(const LabelledVectors train, vectors(rows.train));
  LabelledVectors held_out;
  double c = spec.head_c;
  if (c <= 0 && rows.validation.empty()) c = kUsualC;
  if (c <= 0) {
    TAILOR_TRY(held_out, vectors(rows.validation));
  }
  const fs::path head = out.directory / "head.safetensors";
  TAILOR_TRY(const HeadStart fitted, write_head_start(train, held_out, classes_of(context), c, context.threads,
                                                      context.progress, context.cancel, /*unit_vectors=*/true, head));
  out.head_c = fitted.c;
  Json answer = job_of(context, "features", out.trained_on, rows.tokens);
  answer["head"] = fs::absolute(head).string();
  TAILOR_TRY(out.run, run_tune(answer, out.directory / "answers", context.threads, "answering", context.progress,
                               context.cancel));
  TAILOR_CHECK(read_validation(context, spec, out));
  return out;
}

}  // namespace

Result<EncoderTraining> train_encoder(const TrialContext& context, const TunedSearch& search,
                                      const ReadyModel& trained_on, const ReadyModel& served, const EncoderRows& rows,
                                      const EncoderTrainSpec& spec) {
  if (search.method == "contrastive") return contrast(context, search, trained_on, rows, spec);
  EncoderTraining out;
  out.directory = context.directory / spec.name;
  out.trained_on = trained_on;
  out.served = served;
  Json job = job_of(context, search.method, trained_on, rows.tokens);
  job["settings"] = settings_of(search, spec);
  job["evaluate_every_epochs"] = evaluations(spec);
  if (!spec.head.empty()) job["head"] = spec.head.string();
  TAILOR_TRY(out.run, run_tune(job, out.directory, context.threads, spec.stage, context.progress, context.cancel));
  out.figures = out.run.result;
  TAILOR_CHECK(read_validation(context, spec, out));
  return out;
}

Result<TunedPackage> package_encoder(const TrialContext& context, const EncoderTraining& training) {
  TAILOR_TRY(TunedPackage made, package_tuned_encoder(training.run, training.trained_on, training.served,
                                                      TensorType::kF16, context.package));
  if (training.served.gguf.filename() != kServedFile) return made;
  // By contrast: the encoder was tuned before the run that is packaged, and lies where nothing is kept.
  const fs::path file = context.package / kTunedFile;
  TAILOR_CHECK(tailor::copy_file(training.served.gguf, file));
  made.base.file = kTunedFile;
  made.trained_bytes += tree_bytes(file);
  return made;
}

}  // namespace tailor
