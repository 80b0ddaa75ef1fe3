#include "recipes/fine_tune.h"

#include <fmt/format.h>

#include <cmath>

#include "core/files.h"
#include "data/chat_examples.h"
#include "recipes/tune.h"

namespace tailor {
namespace {

namespace fs = std::filesystem;

constexpr double kUsualRate = 2e-4;          // of tailor-tune, that the multiplier is of
constexpr double kHeldOut = 0.1;             // for the last figures, and for choosing the epoch where no file is given
constexpr std::size_t kFewestExamples = 10;  // as OpenAI had it

/// Turns a run's words and events into a job's.
class JobUi final : public RunUi {
 public:
  explicit JobUi(const FineTuneProgress& progress) : progress_(progress) {}
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
    if (kind == "step" && event.contains("loss")) {
      progress_.step(step, {{"train_loss", event["loss"]}});
    } else if (kind == "evaluation" && event.contains("loss")) {
      last_loss_ = event["loss"].get<double>();
      Json metrics{{"valid_loss", event["loss"]}};
      if (event.contains("accuracy")) metrics["valid_mean_token_accuracy"] = event["accuracy"];
      progress_.step(step, metrics);
    } else if (kind == "estimate" && event.contains("training_seconds")) {
      progress_.estimate(event["training_seconds"].get<double>());
    }
  }
  double last_loss() const { return last_loss_; }

 private:
  const FineTuneProgress& progress_;
  std::string stage_;
  double last_loss_ = NAN;
};

}  // namespace

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
  JobUi ui(progress);
  std::error_code ignored;
  Result<TuneSummary> summary = Error{};
  if (fs::exists(spec.run / "run.json", ignored)) {
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
  out.steps = result.value("steps", std::int64_t{0});
  out.trained_tokens = result.value("tokens", std::int64_t{0});
  if (std::isfinite(ui.last_loss())) out.figures["valid_loss"] = ui.last_loss();
  return out;
}

}  // namespace tailor
