#include "apps/tailor/tune_output.h"

#include <fmt/format.h>

#include <algorithm>
#include <tuple>

#include "fit/budget.h"

namespace tailor {
namespace {

std::string label_scores(const Json& r) {
  const auto percent = [&](const char* metric) {
    const Json& m = r.at("test").at("metrics").at(metric);
    return fmt::format("{:.1f} % [{:.1f}–{:.1f}]", 100 * m.at("value").get<double>(), 100 * m.at("low").get<double>(),
                       100 * m.at("high").get<double>());
  };
  const Json& served = r.at("served");
  return fmt::format(
      "Test part, {} rows: accuracy {}, macro F1 {}\nThe package answers {} of {} rows with the same label as the "
      "trainer",
      r.at("test").at("n_scored").get<std::int64_t>(), percent("accuracy"), percent("macro_f1"),
      served.at("same_labels").get<std::int64_t>(), served.at("n_scored").get<std::int64_t>());
}

/// Numbers and several labels.
std::string target_scores(const Json& r) {
  const Json &metrics = r.at("test").at("metrics"), &served = r.at("served");
  const bool number = r.at("task") == "regression";
  std::string out = fmt::format("Test part, {} rows:", r.at("test").at("n_scored").get<std::int64_t>());
  const auto add = [&](const char* name, const char* metric, double factor, const char* unit) {
    const Json& m = metrics.at(metric);
    out += fmt::format("{} {} {:.4g}{} [{:.4g}–{:.4g}]", out.ends_with(':') ? "" : ",", name,
                       factor * m.at("value").get<double>(), unit, factor * m.at("low").get<double>(),
                       factor * m.at("high").get<double>());
  };
  if (number) {
    add("RMSE", "rmse", 1, "");
    add("Pearson", "pearson", 1, "");
    add("Spearman", "spearman", 1, "");
    return out + fmt::format("\nThe package's numbers are within {:.3g} of the trainer's",
                             served.at("largest_difference").get<double>());
  }
  add("micro F1", "micro_f1", 100, " %");
  add("macro F1", "macro_f1", 100, " %");
  add("all labels right", "subset_accuracy", 100, " %");
  return out + fmt::format(
                   "\nLabels of at least {:.0f} % are answered (chosen on the validation part); the package "
                   "answers {} of {} rows with the same labels as the trainer",
                   100 * r.at("threshold").get<double>(), served.at("same_labels").get<std::int64_t>(),
                   served.at("n_scored").get<std::int64_t>());
}

/// Tags of words.
std::string tag_scores(const Json& r) {
  const Json &test = r.at("test"), &served = r.at("served");
  std::string out = fmt::format("Test part, {} rows, {} words:", test.at("n_scored").get<std::int64_t>(),
                                test.at("words").get<std::int64_t>());
  for (const auto& [metric, name] : {std::pair{"f1", "F1 of spans"},
                                     {"precision", "precision"},
                                     {"recall", "recall"},
                                     {"accuracy", "words right"}}) {
    if (!test.at("metrics").contains(metric)) continue;
    const Json& m = test.at("metrics").at(metric);
    out += fmt::format("{} {} {:.1f} % [{:.1f}–{:.1f}]", out.ends_with(':') ? "" : ",", name,
                       100 * m.at("value").get<double>(), 100 * m.at("low").get<double>(),
                       100 * m.at("high").get<double>());
  }
  return out + fmt::format("\nThe package answers {} of {} words with the same tag as the trainer",
                           served.at("same_tags").get<std::int64_t>(), served.at("words").get<std::int64_t>());
}

/// Pieces of a text.
std::string question_scores(const Json& r) {
  const Json &metrics = r.at("test").at("metrics"), &served = r.at("served");
  const auto percent = [&](const char* metric) {
    const Json& m = metrics.at(metric);
    return fmt::format("{:.1f} % [{:.1f}–{:.1f}]", 100 * m.at("value").get<double>(), 100 * m.at("low").get<double>(),
                       100 * m.at("high").get<double>());
  };
  return fmt::format(
      "Test part, {} questions: exact match {}, F1 {}\nThe package gives {} of {} the answer that the trainer gave",
      r.at("test").at("n_scored").get<std::int64_t>(), percent("exact_match"), percent("f1"),
      served.at("same_answers").get<std::int64_t>(), served.at("n_scored").get<std::int64_t>());
}

/// Before and after, side by side.
std::string text_scores(const Json& r) {
  const Json &before = r.at("untouched"), &after = r.at("served");
  std::string out = fmt::format("{:<38}{:>12}{:>12}\n",
                                fmt::format("Test part, {} rows", r.at("test").at("n_scored").get<std::int64_t>()),
                                "untouched", "tuned");
  const auto line = [&](const std::string& name, const Json& a, const Json& b, double factor, const char* unit) {
    if (a.is_null()) return;
    out += fmt::format("{:<38}{:>12}{:>12}\n", name,
                       fmt::format("{:.{}f}{}", factor * a.get<double>(), factor == 1 ? 3 : 0, unit),
                       fmt::format("{:.{}f}{}", factor * b.get<double>(), factor == 1 ? 3 : 0, unit));
  };
  line("  loss a token", before.at("loss"), after.at("loss"), 1, "");
  const Json &asked = before.at("answers"), &answered = after.at("answers");
  if (const auto n = asked.at("n").get<std::int64_t>(); n > 0) {
    out += fmt::format("{} of them answered\n", n);
    line("  as wanted, to the letter", asked.at("exact"), answered.at("exact"), 100, " %");
    line("  ROUGE-L with what was wanted", asked.at("rouge_l"), answered.at("rouge_l"), 1, "");
    line("  ended by the model", asked.at("ended"), answered.at("ended"), 100, " %");
    line("  valid JSON", asked.at("valid_json"), answered.at("valid_json"), 100, " %");
    line("  length, against what was wanted", asked.at("length_ratio"), answered.at("length_ratio"), 100, " %");
  }
  return out + fmt::format("The package's loss is within {:.4f} a token of the trainer's on every row",
                           after.at("largest_difference").get<double>());
}

/// What fewer bits changed; empty where the package holds the weights as trained.
std::string quantized_scores(const Json& r) {
  if (!r.contains("quantized")) return "";
  const Json &q = r.at("quantized"), &served = r.at("served");
  std::string out = fmt::format("\nQuantized to {} it has {} in the place of {}", q.at("type").get<std::string>(),
                                human_bytes(q.at("package_bytes").get<double>()),
                                human_bytes(served.at("package_bytes").get<double>()));
  if (r.contains("untouched")) {
    out += fmt::format("; so its loss is {:.3f} a token", q.at("loss").get<double>());
    if (const Json& exact = q.at("answers").at("exact"); exact.is_number())
      out += fmt::format(", {:.0f} % of its answers as wanted", 100 * exact.get<double>());
    return out;
  }
  const Json& metrics = q.at("metrics");
  for (const auto& [metric, name] : {std::pair{"exact_match", "exact match"},
                                     {"f1", "F1 of spans"},
                                     {"micro_f1", "micro F1"},
                                     {"rmse", "RMSE"},
                                     {"accuracy", "accuracy"}}) {
    if (!metrics.contains(metric)) continue;
    const auto value = metrics.at(metric).at("value").get<double>();
    out += fmt::format("; so its {} is {}", name,
                       r.contains("target") ? fmt::format("{:.4g}", value) : fmt::format("{:.1f} %", 100 * value));
    break;
  }
  for (const auto& [same, all, what] : {std::tuple{"same_labels", "n_scored", "rows have the trainer's label"},
                                        {"same_tags", "words", "words have the trainer's tag"},
                                        {"same_answers", "n_scored", "questions have the trainer's answer"}}) {
    if (q.contains(same))
      out += fmt::format(", {} of {} {}", q.at(same).get<std::int64_t>(), q.at(all).get<std::int64_t>(), what);
  }
  return out;
}

/// One line of a terminal: control characters shown, breaks as signs.
std::string shown(const std::vector<std::string>& tokens) {
  std::string out;
  for (const std::string& token : tokens) {
    if (!out.empty()) out += "|";
    for (const char c : token) {
      if (c == '\n')
        out += "\\n";
      else if (static_cast<unsigned char>(c) < 0x20)
        out += fmt::format("\\x{:02x}", static_cast<int>(c));
      else
        out += c;
    }
  }
  return out;
}

}  // namespace

std::string tune_result_text(const TuneSummary& s) {
  const Json& r = s.result;
  const std::string training =
      fmt::format("\n{} on {}: {} steps, {} examples, {:.2f} examples a CPU second, {} of peak memory\n",
                  r.at("method").get<std::string>(), r.at("base_model").get<std::string>(),
                  r.at("steps").get<std::int64_t>(), r.at("examples").get<std::int64_t>(),
                  r.at("examples").get<double>() / std::max(1e-9, r.at("cpu_seconds").get<double>()),
                  human_bytes(r.at("peak_memory_bytes").get<double>()));
  const bool texts = r.contains("untouched");
  const std::string package = (s.run / "package").string();
  const std::string ending =
      fmt::format("\n\nPackage:  {0}\nTry it:   tailor {1} {0} \"your text\"\n({2} in all)", package,
                  texts ? "generate" : "predict", human_seconds(r.at("elapsed_seconds").get<double>()));
  return training +
         (texts                     ? text_scores(r)
          : r.contains("no_answer") ? question_scores(r)
          : r.contains("tags")      ? tag_scores(r)
          : r.contains("task")      ? target_scores(r)
                                    : label_scores(r)) +
         quantized_scores(r) + ending;
}

void print_text_preview(const TextPreview& p) {
  fmt::print("{} examples of the shape {} for {}: {} to train on, {} for validation, {} for the test\n",
             p.train + p.validation + p.test, p.shape, p.model, p.train, p.validation, p.test);
  fmt::print("{} rows, {} tokens, the longest row {} (limit {}); {} tokens of the training part are learnt\n", p.rows,
             p.tokens, p.longest, p.max_tokens, p.learnt);
  fmt::print("{} row(s) are cut, {} left out\n", p.truncated, p.dropped);
  for (const ShownRow& row : p.shown) {
    fmt::print("\nline {}: {} tokens, {} learnt{}\n", row.line, row.tokens, row.learnt,
               row.cut ? ", cut at the limit" : "");
    for (const TokenRun& run : row.runs) fmt::print("  {}  {}\n", run.learnt ? "learnt" : "  read", shown(run.tokens));
  }
  fmt::print("\nNothing was trained or written (--dry-run).\n");
}

}  // namespace tailor
