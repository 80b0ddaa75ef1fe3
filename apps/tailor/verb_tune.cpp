#include <fmt/format.h>

#include <memory>

#include "apps/tailor/arguments.h"
#include "apps/tailor/data_options.h"
#include "apps/tailor/tune_output.h"
#include "apps/tailor/ui.h"
#include "apps/tailor/verbs.h"
#include "fit/tune_methods.h"
#include "recipes/tune.h"
#include "recipes/tune_text.h"

namespace tailor {
namespace {

constexpr std::size_t kShownRows = 3;  // of a dry run

/// The words of `tune` before they are checked.
struct TuneWords {
  TuneOptions options;
  DataWords data;
  std::string resume;
  std::vector<std::string> targets;
  double learning_rate = 0, head_learning_rate = -1, epochs = 0, lora_alpha = 0, lora_dropout = -1;
  std::int64_t max_steps = 0, batch_size = 0;
  double distill_temperature = 0, distill_alpha = -1;
  int lora_r = 0, hard_negatives = -1, prompt_tokens = 0;
  std::string prompt_init;
  bool reparameterise = false;
  bool no_head_start = false, json = false, quiet = false;
};

void list_methods() {
  for (const TuneMethod& method : tune_methods()) {
    fmt::print("  {:<18} {:<22} {}\n", method.name,
               method.encoders && method.decoders ? "encoders, decoders"
               : method.encoders                  ? "encoders"
                                                  : "decoders",
               method.summary);
  }
}

/// What was given becomes settings of the job; the rest is the method's default.
void finish_settings(TuneWords& w) {
  Json& s = w.options.settings;
  if (w.learning_rate > 0) s["learning_rate"] = w.learning_rate;
  if (w.head_learning_rate >= 0) s["head_learning_rate"] = w.head_learning_rate;
  if (w.epochs > 0) s["epochs"] = w.epochs;
  if (w.max_steps > 0) s["max_steps"] = w.max_steps;
  if (w.batch_size > 0) s["batch_size"] = w.batch_size;
  if (w.lora_r > 0) s["lora"]["r"] = w.lora_r;
  if (w.lora_alpha > 0) s["lora"]["alpha"] = w.lora_alpha;
  if (w.lora_dropout >= 0) s["lora"]["dropout"] = w.lora_dropout;
  if (w.distill_temperature > 0) s["distill"]["temperature"] = w.distill_temperature;
  if (w.distill_alpha >= 0) s["distill"]["alpha"] = w.distill_alpha;
  if (w.hard_negatives >= 0) s["hard_negatives"] = w.hard_negatives;
  if (w.prompt_tokens > 0) s["soft_prompt"]["tokens"] = w.prompt_tokens;
  if (!w.prompt_init.empty()) s["soft_prompt"]["init"] = w.prompt_init;
  if (w.reparameterise) s["soft_prompt"]["reparameterise"] = true;
  if (!w.targets.empty()) s["lora"]["target_modules"] = w.targets;
  w.options.head_start = !w.no_head_start;
}

Status require_data(const TuneOptions& options) {
  if (options.data.empty())
    return Error{ErrorCode::kInvalidArgument, "tune needs a file with your examples",
                 "tailor tune train.csv --text text --label label --method lora, or: tailor tune chat.jsonl"};
  if (tunes_texts(options)) return {};
  return require_columns("tune", options);
}

}  // namespace

void add_tune(CLI::App& app, Invocation& invocation) {
  auto* verb = app.add_subcommand("tune", "tune one model by one method, and make a package of it");
  auto words = std::make_shared<TuneWords>();
  TuneWords& w = *words;
  verb->add_option(
          "data", w.options.data,
          "your examples: CSV with texts and labels; or JSONL, JSON or CSV with conversations, instructions or "
          "completions")
      ->type_name("FILE");
  verb->add_option("--method", w.options.method, "how to tune; `list` shows the methods")
      ->capture_default_str()
      ->type_name("METHOD");
  verb->add_option(
          "--model", w.options.model,
          "base model: a name, a GGUF file, or a Hugging Face directory (the default model that suits the method)")
      ->type_name("MODEL");
  add_data_options(*verb, w.options, w.data);
  verb->add_option("--learning-rate", w.learning_rate, "peak rate (by method)")
      ->check(CLI::PositiveNumber)
      ->type_name("RATE");
  verb->add_option("--head-learning-rate", w.head_learning_rate, "of a classification head (by method)")
      ->type_name("RATE");
  verb->add_option("--epochs", w.epochs, "passes over the training rows (by method)")
      ->check(CLI::PositiveNumber)
      ->type_name("N");
  verb->add_option("--max-steps", w.max_steps, "steps, in the place of epochs")
      ->check(CLI::PositiveNumber)
      ->type_name("N");
  verb->add_option("--batch-size", w.batch_size, "rows of a step (encoders 32, decoders 8)")
      ->check(CLI::PositiveNumber)
      ->type_name("N");
  verb->add_option("--r,--lora-r", w.lora_r, "rank of low-rank updates (16)")
      ->check(CLI::PositiveNumber)
      ->type_name("R");
  verb->add_option("--lora-alpha", w.lora_alpha, "their scale is alpha / r, rslora alpha / sqrt(r) (by method)")
      ->check(CLI::PositiveNumber)
      ->type_name("ALPHA");
  verb->add_option("--lora-dropout", w.lora_dropout, "on the adapter's input (0)")->type_name("SHARE");
  verb->add_option("--target-modules", w.targets, "modules that carry an adapter: names, or all-linear")
      ->delimiter(',')
      ->type_name("NAMES");
  verb->add_option("--teacher", w.options.teacher,
                   "distill: a package that answers with labels, or a file of its answers; conversations: a package or "
                   "model that answers with text")
      ->type_name("TEACHER");
  verb->add_option("--unlabelled", w.options.unlabelled_file, "distill: CSV of more texts, which the teacher answers")
      ->type_name("CSV");
  verb->add_option("--teacher-tokens", w.options.teacher_tokens,
                   "distill, conversations: longest answer of the teacher that is learnt")
      ->check(CLI::PositiveNumber)
      ->capture_default_str()
      ->type_name("N");
  verb->add_option("--distill-temperature", w.distill_temperature,
                   "distill: above 1 the teacher's small probabilities count for more (2)")
      ->check(CLI::PositiveNumber)
      ->type_name("T");
  verb->add_option("--distill-alpha", w.distill_alpha, "distill: weight of the teacher, the rest is the label's (0.7)")
      ->check(CLI::Range(0.0, 1.0).description(""))
      ->type_name("SHARE");
  verb->add_option("--hard-negatives", w.hard_negatives,
                   "contrastive: near texts of other labels that each text brings along (1)")
      ->check(CLI::NonNegativeNumber)
      ->type_name("N");
  verb->add_option("--prompt-tokens", w.prompt_tokens, "soft prompts: virtual tokens (20)")
      ->check(CLI::PositiveNumber)
      ->type_name("N");
  verb->add_option("--prompt-init", w.prompt_init, "soft prompts: begin as the labels' words, or vocabulary, or random")
      ->check(CLI::IsMember({"labels", "vocabulary", "random"}).description(""))
      ->type_name("WAY");
  verb->add_option("--init-text", w.options.init_text, "soft prompts: begin as the tokens of this text")
      ->type_name("TEXT");
  verb->add_flag("--reparameterise", w.reparameterise,
                 "prompt-tuning, prefix-tuning: train a network that makes the virtual tokens");
  verb->add_option("--metric", w.options.metric,
                   "which values are kept: accuracy (usual), macro_f1 or loss on validation rows; texts: loss")
      ->check(CLI::IsMember({"accuracy", "macro_f1", "loss"}).description(""))
      ->type_name("METRIC");
  verb->add_option("--patience", w.options.patience, "stop after so many evaluations without a better metric (never)")
      ->type_name("N");
  verb->add_option("--max-tokens", w.options.max_tokens,
                   "conversations: longest row in tokens; longer ones lose their end (2048, or what the model reads)")
      ->type_name("N");
  verb->add_option("--answers", w.options.answers, "conversations: test rows that are answered before and after")
      ->capture_default_str()
      ->type_name("N");
  verb->add_flag("--dry-run", w.options.dry_run, "conversations: show token by token what would be learnt, and stop");
  verb->add_flag("--no-head-start", w.no_head_start,
                 "start a classification head at random, not at a logistic regression");
  verb->add_option("--threads", w.options.threads, "threads (all cores)");
  verb->add_option("--out", w.options.out, "run directory (runs/<name of the data>-<method>)")->type_name("DIR");
  verb->add_option("--resume", w.resume, "go on with an interrupted run")->type_name("RUN");
  verb->add_flag("--json", w.json, "events as JSON lines instead of a display");
  verb->add_flag("--quiet", w.quiet, "say nothing but warnings and errors");
  verb->footer(
      "Examples: tailor tune train.csv --text text --label label --method lora --model smollm2-135m-instruct --out "
      "runs/lora\n"
      "          tailor tune chat.jsonl --method lora --out runs/chat");
  verb->callback([&invocation, words] {
    invocation.run = [&invocation, words]() -> Result<int> {
      TuneWords& given = *words;
      if (given.options.method == "list") {
        list_methods();
        return 0;
      }
      TAILOR_CHECK(finish_data_options(given.data, given.options));
      finish_settings(given);
      const auto ui = make_ui(given.json ? UiKind::kJson : given.quiet ? UiKind::kQuiet : UiKind::kAuto);
      Result<TuneSummary> summary = Error{ErrorCode::kInternal, "", ""};
      TuneOptions& options = given.options;
      if (!given.resume.empty()) {
        summary = resume_tune(given.resume, *ui, invocation.cancel);
      } else {
        TAILOR_CHECK(require_data(options));
        if (options.dry_run) {
          if (!tunes_texts(options)) {
            return Error{ErrorCode::kInvalidArgument, "--dry-run of tune shows conversations, not texts with labels",
                         "leave it out"};
          }
          TAILOR_TRY(const TextPreview preview, preview_texts(options, kShownRows, *ui));
          print_text_preview(preview);
          return 0;
        }
        if (options.out.empty())
          options.out = unused_run_directory(options.data.stem().string() + "-" + options.method);
        summary = tune(options, invocation.command_line, *ui, invocation.cancel);
      }
      if (!summary)
        return explain_interruption(summary.error(), "tune",
                                    !given.resume.empty() ? given.resume : options.out.string());
      ui->text(tune_result_text(*summary));
      return 0;
    };
  });
}

}  // namespace tailor
