#include "fit/encoder_training.h"

#include <algorithm>
#include <cmath>

namespace tailor {
namespace {

namespace fs = std::filesystem;

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

}  // namespace

Result<EncoderTraining> train_encoder(const TrialContext& context, const TunedSearch& search, const ReadyModel& base,
                                      const EncoderRows& rows, const EncoderTrainSpec& spec) {
  EncoderTraining out;
  out.directory = context.directory / spec.name;
  Json job = job_of(context, search.method, base, rows.tokens);
  job["settings"] = settings_of(search, spec);
  job["evaluate_every_epochs"] = evaluations(spec);
  job["head"] = spec.head.string();
  TAILOR_TRY(out.run, run_tune(job, out.directory, context.threads, spec.stage, context.progress, context.cancel));
  TAILOR_CHECK(read_validation(context, spec, out));
  return out;
}

}  // namespace tailor
