#include <fmt/format.h>

#include <memory>

#include "apps/tailor/arguments.h"
#include "apps/tailor/data_options.h"
#include "apps/tailor/tune_flags.h"
#include "apps/tailor/tune_output.h"
#include "apps/tailor/ui.h"
#include "apps/tailor/verbs.h"
#include "fit/question_data.h"
#include "fit/tag_data.h"
#include "fit/target_data.h"
#include "fit/tune_methods.h"
#include "model/tokenizer.h"
#include "recipes/tune.h"
#include "recipes/tune_questions.h"
#include "recipes/tune_tags.h"
#include "recipes/tune_text.h"

namespace tailor {
namespace {

constexpr std::size_t kShownRows = 3;  // of a dry run

/// The words of `tune` before they are checked.
struct TuneWords {
  DataOptions bound;  // what the options that `fit` has too are bound to
  DataWords data;
  TuneFlags flags;
  std::string resume;
  std::string text_pair, target, task, label_separator;
  bool export_hugging_face = false;
  bool dry_run = false, json = false, quiet = false;
};

void list_methods() {
  for (const TuneMethod& method : tune_methods()) {
    fmt::print("  {:<18} {:<30} {}\n", method.name, uses_of(method), method.summary);
  }
}

/// The second text joins the first one's template, with what stands between the texts of a pair.
Status finish_task(const TuneWords& w, TuneOptions& o) {
  if (!w.task.empty()) o.task = w.task;
  if (!w.label_separator.empty()) o.label_separator = w.label_separator;
  if (w.export_hugging_face) o.export_hugging_face = true;
  if (!w.target.empty()) {
    if (o.task != kTaskRegression || !o.label_column.empty())
      return Error{ErrorCode::kInvalidArgument, "--target is the column with the number of --task regression",
                   "labels have --label"};
    o.label_column = w.target;
  }
  if (o.task == kTaskRegression && w.target.empty()) {
    return Error{ErrorCode::kInvalidArgument, "--task regression needs the name of the column with the number",
                 "add --target COLUMN"};
  }
  if (!o.label_separator.empty() && o.task.empty()) o.task = kTaskMultiLabel;
  if (!o.label_separator.empty() && o.task != kTaskMultiLabel)
    return Error{ErrorCode::kInvalidArgument, "--label-separator is for --task multi-label", "leave it out"};
  if (o.task == "classification") o.task.clear();
  const bool fits = o.metric.empty() || o.metric == "loss" ||
                    (o.metric == "micro_f1"    ? o.task == kTaskMultiLabel
                     : o.metric == "entity_f1" ? o.task == kTaskTokens
                     : o.metric == "macro_f1"  ? o.task != kTaskRegression && o.task != kTaskSpans
                                               : o.task != kTaskRegression);
  if (!fits) {
    return Error{
        ErrorCode::kInvalidArgument,
        fmt::format("--metric {} is not one of --task {}", o.metric, o.task.empty() ? "classification" : o.task),
        "regression: loss; multi-label: micro_f1, macro_f1, accuracy or loss; token-classification: entity_f1, "
        "accuracy, "
        "macro_f1 or loss; span-extraction: accuracy or loss"};
  }
  if (o.task == kTaskTokens && (!o.text_template.empty() || o.text_columns.size() > 1 || !w.text_pair.empty())) {
    return Error{ErrorCode::kInvalidArgument, "--task token-classification reads one text, its words as they stand",
                 "--text names the key with the words or the text, --label the one with their tags"};
  }
  if (o.task == kTaskSpans) {
    if (!o.text_template.empty() || o.text_columns.size() > 1 || o.text_columns.empty() != w.text_pair.empty()) {
      return Error{ErrorCode::kInvalidArgument, "--task span-extraction reads a question and a text, each from one key",
                   "--text question --text-pair context, or neither"};
    }
    if (!w.text_pair.empty()) o.text_columns.push_back(w.text_pair);
    return {};
  }
  if (w.text_pair.empty()) return {};
  if (o.text_columns.empty() && o.text_template.empty())
    return Error{ErrorCode::kInvalidArgument, "--text-pair names the second text; the first one is missing",
                 "add --text COLUMN"};
  if (o.text_template.empty())
    for (const std::string& column : o.text_columns)
      o.text_template += (o.text_template.empty() ? "{" : "\n{") + column + "}";
  o.text_template += kPairSeparator + ("{" + w.text_pair + "}");
  o.text_columns.push_back(w.text_pair);
  return {};
}

Status require_data(const TuneOptions& options) {
  if (options.data.empty())
    return Error{ErrorCode::kInvalidArgument, "tune needs a file with your examples",
                 "tailor tune train.csv --text text --label label --method lora, or: tailor tune chat.jsonl"};
  if (tunes_texts(options) || tunes_tags(options) || tunes_questions(options)) return {};
  return require_columns("tune", options);
}

}  // namespace

void add_tune(CLI::App& app, Invocation& invocation) {
  auto* verb = app.add_subcommand("tune", "tune one model by one method, and make a package of it");
  auto words = std::make_shared<TuneWords>();
  TuneWords& w = *words;
  add_data_options(*verb, w.bound, w.data);
  w.flags.add(*verb, w.bound);
  verb->add_flag("--dry-run", w.dry_run, "conversations: show token by token what would be learnt, and stop");
  verb->add_option("--text-pair", w.text_pair, "encoders: column with the second text of a pair")->type_name("COLUMN");
  verb->add_option("--task", w.task,
                   "encoders: classification (usual), regression, multi-label, token-classification or span-extraction")
      ->check(
          CLI::IsMember({"classification", kTaskRegression, kTaskMultiLabel, kTaskTokens, kTaskSpans}).description(""))
      ->type_name("TASK");
  verb->add_option("--target", w.target, "regression: column with the number")->type_name("COLUMN");
  verb->add_option("--label-separator", w.label_separator,
                   "multi-label: what stands between the labels of a cell (|), where it is no JSON list")
      ->type_name("TEXT");
  verb->add_flag("--export-hugging-face", w.export_hugging_face,
                 "encoders: also write the tuned encoder as a directory that transformers reads");
  verb->add_option("--resume", w.resume, "go on with an interrupted run")->type_name("RUN");
  verb->add_flag("--json", w.json, "events as JSON lines instead of a display");
  verb->add_flag("--quiet", w.quiet, "say nothing but warnings and errors");
  verb->footer(
      "Examples: tailor tune train.csv --text text --label label --method lora --model smollm2-135m-instruct --out "
      "runs/lora\n"
      "          tailor tune chat.jsonl --method lora --out runs/chat\n"
      "          tailor tune reviews.csv --text review --task regression --target stars --method full\n"
      "          tailor tune entities.jsonl --task token-classification --method full\n"
      "          tailor tune --config tune.yaml --epochs 2");
  verb->callback([&invocation, words] {
    invocation.run = [&invocation, words]() -> Result<int> {
      TuneWords& given = *words;
      TAILOR_CHECK(finish_data_options(given.data, given.bound));
      TAILOR_TRY(const TuneConfig config, given.flags.read());
      if (const auto* method = config.find("method"); method != nullptr && method->value == "list") {
        list_methods();
        return 0;
      }
      if (!config.errors.empty()) return as_one(config.errors);
      const auto ui = make_ui(given.json ? UiKind::kJson : given.quiet ? UiKind::kQuiet : UiKind::kAuto);
      for (const std::string& note : config.notes) ui->note(note);
      Result<TuneSummary> summary = Error{ErrorCode::kInternal, "", ""};
      const Json asked = options_of(config);
      TAILOR_TRY(TuneOptions options, tune_options_of_run(Json{{"options", asked}}));
      options.out = asked.value("out", "");
      options.dry_run = given.dry_run;
      if (!given.resume.empty()) {
        summary = resume_tune(given.resume, asked, *ui, invocation.cancel);
      } else {
        TAILOR_CHECK(finish_task(given, options));
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
