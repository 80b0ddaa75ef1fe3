#include "recipes/fine_tune.h"

#include <fmt/format.h>

#include <cmath>

#include "core/files.h"
#include "data/chat_examples.h"
#include "fit/trial.h"
#include "fit/tune_process.h"
#include "recipes/tune.h"

namespace tailor {
namespace {

namespace fs = std::filesystem;

constexpr double kUsualRate = 2e-4;          // that learning_rate_multiplier is of
constexpr double kHeldOut = 0.1;             // for the last figures, and for choosing the epoch where no file is given
constexpr std::size_t kFewestExamples = 10;  // as OpenAI had it

/// What tailor-tune trains with, `settings`, as a job's object names it.
Json hyperparameters_of(const FineTuneSpec& spec, const Json& settings) {
  const auto epochs = settings.at("epochs").get<double>();
  const bool whole = epochs == std::floor(epochs);
  const double usual = settings.at("learning_rate").get<double>() / kUsualRate;
  return {{"n_epochs", whole ? Json(static_cast<std::int64_t>(epochs)) : Json(epochs)},
          {"batch_size", settings.at("batch_size")},
          {"learning_rate_multiplier", spec.learning_rate_multiplier.value_or(usual)}};
}

Json training_metrics(const Json& step) {
  Json out{{"train_loss", step.at("loss")}};
  if (step.contains("token_accuracy")) out["train_mean_token_accuracy"] = step["token_accuracy"];
  return out;
}

Json validation_metrics(const Json& evaluation) {
  Json out{{"valid_loss", evaluation.at("loss")}};
  if (evaluation.contains("token_accuracy")) out["valid_mean_token_accuracy"] = evaluation["token_accuracy"];
  return out;
}

/// What the weights that were kept had reached: those of the best evaluation, or without one the last.
void describe_kept(const Json& result, FineTuned& out) {
  out.step = result.at("steps").get<std::int64_t>();
  if (const Json& best = result.at("best_step"); best.is_number()) out.step = best.get<std::int64_t>();
  const Json& losses = result.at("losses");
  const auto at = static_cast<std::size_t>(out.step - 1);
  if (out.step > 0 && at < losses.size() && losses[at].is_number()) out.metrics["train_loss"] = losses[at];
  for (const Json& evaluation : result.at("evaluations")) {
    if (evaluation.at("step") == out.step) out.metrics.update(validation_metrics(evaluation));
  }
}

/// Turns a run's words and events into a job's.
class JobUi final : public RunUi {
 public:
  JobUi(const FineTuneSpec& spec, const FineTuneProgress& progress) : spec_(spec), progress_(progress) {}
  void note(std::string_view message) override { progress_.say("info", std::string(message)); }
  void warning(std::string_view message) override { progress_.say("warn", std::string(message)); }
  void stage(std::string_view name) override {
    if (name == stage_) return;
    stage_ = name;
    progress_.say("info", "Now: " + stage_);
  }
  void progress(const Progress&, double, double) override {}
  void text(std::string_view) override {}
  void event(const Json& event) override {
    const std::string kind = event.value("event", "");
    const std::int64_t step = event.value("step", std::int64_t{0});
    const bool has_loss = event.contains("loss") && event["loss"].is_number();  // one that is not finite is null
    if (kind == "start" && event.contains("batch_size")) {
      progress_.begun(hyperparameters_of(spec_, event));
    } else if (kind == "step" && has_loss) {
      progress_.step(step, training_metrics(event));
    } else if (kind == "evaluation" && has_loss) {
      progress_.step(step, validation_metrics(event));
    } else if (kind == "estimate" && event.contains("training_seconds")) {
      progress_.estimate(event["training_seconds"].get<double>());
    }
  }

 private:
  const FineTuneSpec& spec_;
  const FineTuneProgress& progress_;
  std::string stage_;
};

}  // namespace

Status TuneRecipeTuner::ready() const {
  if (!find_tune_program().empty()) return {};
  return Error{ErrorCode::kUnavailable,
               "this server cannot train: there is no tailor-tune beside its tailor; the release archive and the "
               "container image come without it",
               "train where Tailor was built from its sources (make setup && make build), or name a tailor-tune in the "
               "server's TAILOR_TUNE"};
}

Result<std::string> TuneRecipeTuner::check(const fs::path& file, const std::string& name) {
  TAILOR_TRY(std::string bytes, read_file(file));
  // Its name in the store says nothing of what it is; what the client called it does.
  const std::string shown = fs::path(name).extension().empty() ? name + ".jsonl" : name;
  TAILOR_TRY(const ChatData data, parse_chat_examples(std::move(bytes), shown));
  if (data.examples.size() < kFewestExamples) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("{}: {} example(s); expected at least {}", name, data.examples.size(), kFewestExamples),
                 ""};
  }
  std::string out = fmt::format("{} examples of {}", data.examples.size(), to_string(data.shape));
  for (const std::string& warning : data.warnings) out += "; " + warning;
  return out;
}

Result<FineTuned> TuneRecipeTuner::train(const FineTuneSpec& spec, const FineTuneProgress& progress,
                                         const CancelToken& cancel) {
  JobUi ui(spec, progress);
  std::error_code ignored;
  Result<TuneSummary> summary = Error{};
  if (const fs::path ended = RunDirectory{spec.run}.result(); fs::exists(ended, ignored)) {
    // Written last: what is missing is that the job is told so.
    TAILOR_TRY(Json result, read_json(ended));
    summary = TuneSummary{spec.run, std::move(result)};
  } else if (fs::exists(spec.run / "run.json", ignored)) {
    summary = resume_tune(spec.run, Json::object(), ui, cancel);
  } else {
    fs::remove_all(spec.run, ignored);  // of a run that had not begun
    TAILOR_CHECK(make_directories(spec.run.parent_path()));
    TuneOptions options;
    options.data = spec.training_file;
    options.validation_file = spec.validation_file;
    options.validation_fraction = options.test_fraction = kHeldOut;
    options.seed = spec.seed;
    options.method = "lora";
    options.model = spec.base.string();
    options.threads = threads_;
    options.out = spec.run;
    if (spec.epochs) options.settings["epochs"] = *spec.epochs;
    if (spec.batch_size) options.settings["batch_size"] = *spec.batch_size;
    if (spec.learning_rate_multiplier) options.settings["learning_rate"] = kUsualRate * *spec.learning_rate_multiplier;
    options.job["checkpoint_every_steps"] = 20;
    summary = tune(options, "fine-tuning job", ui, cancel);
  }
  if (!summary.has_value()) return summary.error();
  FineTuned out;
  out.package = spec.run / "package";
  const Json& result = summary->result;
  out.trained_tokens = result.value("tokens", std::int64_t{0});
  out.hyperparameters = hyperparameters_of(spec, result.at("settings"));
  describe_kept(result, out);
  return out;
}

}  // namespace tailor
