#include <fmt/format.h>

#include <fmt/ranges.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <memory>

#include "apps/tailor/arguments.h"
#include "apps/tailor/data_options.h"
#include "apps/tailor/ui.h"
#include "apps/tailor/verbs.h"
#include "core/system.h"
#include "fit/advice.h"
#include "fit/budget.h"
#include "fit/candidates.h"
#include "fit/table.h"
#include "recipes/fit.h"

namespace tailor {
namespace {

/// The words of `fit` and `advise` before they are checked.
struct FitWords {
  FitOptions options;
  DataWords data;
  std::string budget = "15m", max_latency, max_size, max_memory, memory_cap;
  std::vector<std::string> answers;
  std::string resume, replay;
  bool json = false, quiet = false;
};

Status finish_options(FitWords& w) {
  TAILOR_TRY(w.options.budget_seconds, parse_duration(w.budget));
  if (!w.max_latency.empty()) {
    TAILOR_TRY(w.options.max_latency_ms, parse_milliseconds(w.max_latency));
  }
  if (!w.max_size.empty()) {
    TAILOR_TRY(w.options.max_size_bytes, parse_bytes(w.max_size));
  }
  if (!w.max_memory.empty()) {
    TAILOR_TRY(w.options.max_memory_bytes, parse_bytes(w.max_memory));
  }
  if (!w.memory_cap.empty()) {
    TAILOR_TRY(w.options.memory_cap_bytes, parse_bytes(w.memory_cap));
  }
  TAILOR_CHECK(finish_data_options(w.data, w.options));
  for (const auto& answer : w.answers) {
    TAILOR_TRY(const auto pair, parse_answer(answer));
    w.options.answers[pair.first] = pair.second;
  }
  return {};
}

Status require_data(const FitOptions& options) {
  if (options.data.empty())
    return Error{ErrorCode::kInvalidArgument, "fit needs a CSV file with your examples",
                 "tailor fit inquiries.csv --text message --label intent"};
  return require_columns("fit", options);
}

void list_methods() {
  static constexpr const char* kRoles[] = {"no model", "encoder", "decoder", "either"};
  for (const Candidate& c : candidate_table()) {
    fmt::print("  {:<26} {:<9} {:<6} {}{}\n", c.method, kRoles[static_cast<int>(c.role)], c.usual ? "usual" : "",
               c.title, c.needs.empty() ? "" : fmt::format(" ({})", c.needs));
  }
}

std::size_t terminal_width() {
  winsize size{};
  return ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col >= 80 ? size.ws_col : 120;
}

void say_result(const FitSummary& s, const FitOptions& options, FitUi& ui) {
  TableOptions table_options;
  table_options.recommended = s.decision.recommended;
  table_options.metric = options.metric;
  table_options.price_per_hour = options.price_per_hour;
  for (const auto& r : s.trials) table_options.n_test = std::max(table_options.n_test, r.n_scored);
  ui.text("\n" + terminal_table(make_comparison_table(s.trials, table_options), {.width = terminal_width()}) + "\n");
  const auto winner = std::find_if(s.trials.begin(), s.trials.end(),
                                   [&](const TrialRecord& r) { return r.id == s.decision.recommended; });
  if (winner != s.trials.end()) {
    ui.text(fmt::format("Use {}{}.\n{}", winner->method, winner->base_model.empty() ? "" : " on " + winner->base_model,
                        s.decision.reason));
  }
  for (const auto& sentence : s.decision.would_change) ui.text("· " + sentence);
  ui.text(fmt::format("\nReport:   {}\nPackage:  {}\nTry it:   tailor predict {} \"your text\"\n({} in all)",
                      (s.run / "report.html").string(), (s.run / "package").string(), (s.run / "package").string(),
                      human_seconds(s.elapsed_seconds)));
}

}  // namespace

void add_fit(CLI::App& app, Invocation& invocation) {
  auto* verb =
      app.add_subcommand("fit", "measure which way of using a language model is best for your examples, and make it");
  auto words = std::make_shared<FitWords>();
  FitWords& w = *words;
  verb->add_option("data", w.options.data, "CSV file with your examples")->type_name("CSV");
  add_data_options(*verb, w.options, w.data);
  verb->add_option("--budget", w.budget, "time for search, training and validation: 90s, 15m, 2h")
      ->capture_default_str()
      ->type_name("TIME");
  verb->add_option("--model", w.options.models,
                   "base model: a name, a GGUF file, or a Hugging Face directory; several allowed")
      ->type_name("MODEL");
  verb->add_option("--method,--methods", w.options.methods,
                   "only these methods: names (`--method list` shows them), `usual`, or `all`; without it the usual "
                   "ones, then the others with what time is left")
      ->type_name("METHOD")
      ->delimiter(',');
  verb->add_option("--metric", w.options.metric,
                   "what is best: accuracy, macro_f1, f1:LABEL, or cost:FILE (a JSON cost matrix)")
      ->capture_default_str()
      ->type_name("METRIC");
  verb->add_option("--tie-margin", w.options.tie_margin,
                   "a difference up to this that is not significant is a tie, and the cheaper wins")
      ->capture_default_str();
  verb->add_option("--max-latency", w.max_latency, "longest p95 of one answer, such as 20ms")->type_name("TIME");
  verb->add_option("--max-size", w.max_size, "largest package, such as 100MB")->type_name("SIZE");
  verb->add_option("--max-memory", w.max_memory, "most memory while answering, such as 500MB")->type_name("SIZE");
  verb->add_option("--price-per-hour", w.options.price_per_hour, "price of an hour of this machine, in your currency")
      ->capture_default_str();
  verb->add_option("--requests-per-day", w.options.requests_per_day, "requests you expect a day, for the advice");
  verb->add_option("--min-confidence", w.options.min_confidence, "answers below this probability are left to a person")
      ->capture_default_str()
      ->check(CLI::Range(0.0, 1.0).description(""))
      ->type_name("PROBABILITY");
  verb->add_option("--out-of-scope", w.options.out_of_scope_label,
                   "the label of messages that belong to none (found by its name otherwise)")
      ->type_name("LABEL");
  verb->add_option("--answer", w.answers, "an answer to a question of `tailor advise`: QUESTION=yes|no")
      ->type_name("ANSWER");
  verb->add_option("--threads", w.options.threads, "threads (all cores)");
  verb->add_option("--memory-cap", w.memory_cap, "no candidate may take more memory than this, such as 4GB")
      ->type_name("SIZE");
  verb->add_option("--out", w.options.out, "run directory (runs/<name of the data>)")->type_name("DIR");
  verb->add_option("--resume", w.resume, "go on with an interrupted run")->type_name("RUN");
  verb->add_option("--replay", w.replay, "repeat the decisions of a run without looking at the clock")
      ->type_name("RUN");
  verb->add_flag("--dry-run", w.options.dry_run, "stop after the advice and the estimates");
  verb->add_flag("--no-texts", w.options.no_texts,
                 "leave your texts out of the report, and out of packages of neighbours");
  verb->add_flag("--json", w.json, "events as JSON lines instead of a display");
  verb->add_flag("--quiet", w.quiet, "say nothing but warnings and errors");
  verb->footer("Example:  tailor fit inquiries.csv --text message --label intent --budget 15m --out runs/inquiries");
  verb->callback([&invocation, words] {
    invocation.run = [&invocation, words]() -> Result<int> {
      FitWords& given = *words;
      if (given.options.methods == std::vector<std::string>{"list"}) {
        list_methods();
        return 0;
      }
      TAILOR_CHECK(finish_options(given));
      const auto ui = make_ui(given.json ? UiKind::kJson : given.quiet ? UiKind::kQuiet : UiKind::kAuto);
      const FitEnvironment environment{program_directory() / "tailor", invocation.command_line};
      Result<FitSummary> summary = Error{ErrorCode::kInternal, "", ""};
      FitOptions options = given.options;
      if (!given.resume.empty()) {
        summary = resume_fit(given.resume, environment, *ui, invocation.cancel);
      } else if (!given.replay.empty()) {
        if (options.out.empty()) options.out = given.replay + "-replay";
        summary = replay_fit(given.replay, options.out, environment, *ui, invocation.cancel);
      } else {
        TAILOR_CHECK(require_data(options));
        if (options.out.empty()) options.out = unused_run_directory(options.data.stem().string());
        summary = fit(options, environment, *ui, invocation.cancel);
      }
      if (!summary)
        return explain_interruption(summary.error(), "fit",
                                    !given.resume.empty() ? given.resume : options.out.string());
      if (summary->stopped_after_advice) return 0;
      say_result(*summary, options, *ui);
      return summary->some_failed ? 3 : 0;
    };
  });
}

}  // namespace tailor
