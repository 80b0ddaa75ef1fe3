#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <numeric>

#include "apps/tailor/verbs.h"
#include "core/json.h"
#include "fit/budget.h"
#include "fit/tag_answer.h"
#include "recipes/predict.h"
#include "recipes/predict_questions.h"
#include "recipes/predict_tags.h"
#include "text/unicode.h"

namespace tailor {
namespace {

struct PredictWords {
  PredictRequest request;
  double min_confidence = -1;
  bool json = false, quiet = false;
  int top = 3;
  std::string delimiter;
};

std::vector<std::size_t> best_first(const PredictedRow& row) {
  std::vector<std::size_t> order(row.probabilities.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return row.probabilities[a] > row.probabilities[b]; });
  return order;
}

void print_row(const PredictedRow& row, const PredictSummary& s, const PredictWords& w) {
  const auto order = best_first(row);
  if (w.json) {
    Json probabilities = Json::object();
    for (const std::size_t i : order) probabilities[s.manifest.labels[i]] = row.probabilities[i];
    Json json{{"text", row.text},
              {"label", row.label.empty() ? Json(nullptr) : Json(row.label)},
              {"confidence", row.confidence},
              {"probabilities", probabilities},
              {"milliseconds", row.milliseconds}};
    if (s.manifest.target.kind == PackageTarget::Kind::kNumber)
      json = Json{{"value", row.value}, {"milliseconds", row.milliseconds}};
    if (s.manifest.target.kind == PackageTarget::Kind::kLabelSet)
      json = Json{{"labels", row.labels}, {"probabilities", probabilities}, {"milliseconds", row.milliseconds}};
    fmt::print("{}\n", dump_json(json));
    return;
  }
  if (s.manifest.target.kind == PackageTarget::Kind::kNumber) {
    fmt::print("{}\n", row.label);
    return;
  }
  if (s.manifest.target.kind == PackageTarget::Kind::kLabelSet) {
    fmt::print("{}\n", row.label.empty() ? "no label holds" : row.label);
    for (std::size_t i = 0; i < std::min<std::size_t>(order.size(), static_cast<std::size_t>(std::max(0, w.top))); ++i)
      fmt::print("  {:<40} {:5.1f} %\n", s.manifest.labels[order[i]], 100 * row.probabilities[order[i]]);
    return;
  }
  fmt::print("{}  ({:.1f} %)\n", row.label.empty() ? "no answer: below --min-confidence" : row.label,
             100 * row.confidence);
  const auto n = std::min<std::size_t>(order.size(), static_cast<std::size_t>(std::max(0, w.top)));
  for (std::size_t i = row.label.empty() ? 0 : 1; i < n; ++i)
    fmt::print("  {:<40} {:5.1f} %\n", s.manifest.labels[order[i]], 100 * row.probabilities[order[i]]);
}

void print_tags(const TaggedRow& row, const WordTags& answer, const PackageManifest& manifest, bool json) {
  const Json out = tag_answer(row, answer, manifest.labels, manifest.target.spans);
  if (json) {
    fmt::print("{}\n", dump_json(out));
    return;
  }
  fmt::print("{}\n", one_line(row.text));
  if (!manifest.target.spans) {
    for (std::size_t w = 0; w < row.words.size(); ++w)
      fmt::print("  {:<30} {}\n", out["tokens"][w].get<std::string>(), out["tags"][w].get<std::string>());
    return;
  }
  if (out["spans"].empty()) fmt::print("  nothing found\n");
  for (const Json& span : out["spans"])
    fmt::print("  {:<30} {}  ({:.1f} %)\n", one_line(span["text"].get<std::string>()), span["label"].get<std::string>(),
               100 * span["p"].get<double>());
}

/// What is said below the answers of a file.
std::string tag_line(const TagSummary& s) {
  std::string line = fmt::format("{} rows in {}", s.rows.size(), human_seconds(s.seconds));
  if (s.compared == 0) return line;
  line += fmt::format(", {} of {} words right", s.right, s.words);
  if (s.manifest.target.spans)
    line += fmt::format(", spans: F1 {:.2f} %, precision {:.2f} %, recall {:.2f} %", 100 * s.spans.f1(),
                        100 * s.spans.precision(), 100 * s.spans.recall());
  return line;
}

Result<int> answer_tags(const PredictWords& given, PackageManifest manifest, const ProgressFn& progress,
                        const CancelToken& cancel) {
  TAILOR_TRY(const TagSummary summary, predict_tags(given.request, std::move(manifest), progress, cancel));
  if (given.request.output.empty()) {
    for (std::size_t r = 0; r < summary.rows.size(); ++r)
      print_tags(summary.rows[r], summary.answers[r], summary.manifest, given.json);
  } else {
    TAILOR_CHECK(write_tag_predictions(given.request.output, summary));
  }
  if (given.quiet || given.json || given.request.input.empty()) return 0;
  fmt::print("{}{}\n", tag_line(summary),
             given.request.output.empty() ? "" : ", written to " + given.request.output.string());
  return 0;
}

Result<int> answer_questions(const PredictWords& given, PackageManifest manifest, const ProgressFn& progress,
                             const CancelToken& cancel) {
  TAILOR_TRY(const QuestionSummary s, predict_questions(given.request, std::move(manifest), progress, cancel));
  if (!given.request.output.empty()) TAILOR_CHECK(write_question_predictions(given.request.output, s));
  for (std::size_t r = 0; given.request.output.empty() && r < s.rows.size(); ++r) {
    const Json answer = span_answer_json(s.rows[r], s.answers[r]);
    if (given.json)
      fmt::print("{}\n", dump_json(answer));
    else
      fmt::print("{}  ({:.1f} %)\n", s.answers[r].text.empty() ? "the text has no answer" : one_line(s.answers[r].text),
                 100 * s.answers[r].p);
  }
  if (given.quiet || given.json || given.request.input.empty()) return 0;
  std::string line = fmt::format("{} questions in {}", s.rows.size(), human_seconds(s.seconds));
  if (s.compared > 0)
    line += fmt::format(", exact match {:.2f} %, F1 {:.2f} % of {}", 100 * s.scores.exact_match.value,
                        100 * s.scores.f1.value, s.compared);
  if (!given.request.output.empty()) line += ", written to " + given.request.output.string();
  fmt::print("{}\n", line);
  return 0;
}

}  // namespace

void add_predict(CLI::App& app, Invocation& invocation) {
  auto* verb = app.add_subcommand("predict", "answer texts with a package that fit made");
  auto words = std::make_shared<PredictWords>();
  PredictWords& w = *words;
  verb->add_option("package", w.request.package, "package directory")->required()->type_name("PACKAGE");
  verb->add_option("texts", w.request.texts, "texts to answer")->type_name("TEXT");
  verb->add_option("--input", w.request.input, "CSV file with texts; packages of tags: JSONL, or a word a line")
      ->type_name("FILE");
  verb->add_option("--output", w.request.output,
                   "CSV file to write: label, probability of every label, milliseconds; packages of tags: JSONL")
      ->type_name("FILE");
  verb->add_option("--text", w.request.text_columns, "column with the text (as the package was made, otherwise)")
      ->type_name("COLUMN");
  verb->add_option("--template", w.request.text_template, "how several columns make one text")->type_name("TEXT");
  verb->add_option("--label", w.request.label_column, "column with the right label, to print the accuracy")
      ->type_name("COLUMN");
  verb->add_option("--encoding", w.request.encoding, "encoding of the input when not UTF-8")->type_name("NAME");
  verb->add_option("--delimiter", w.delimiter, "column delimiter when it is not found out")->type_name("CHAR");
  verb->add_option("--min-confidence", w.min_confidence,
                   "leave the answer open below this probability (as the package says, otherwise)")
      ->check(CLI::Range(0.0, 1.0).description(""))
      ->type_name("PROBABILITY");
  verb->add_option("--top", w.top, "labels to show for a text")->capture_default_str();
  verb->add_option("--threads", w.request.threads, "threads (all cores)");
  verb->add_flag("--json", w.json, "one JSON object a line");
  verb->add_flag("--quiet", w.quiet, "print no summary");
  verb->footer(
      "Examples:  tailor predict runs/inquiries/package \"where is my viewing appointment?\"\n"
      "           tailor predict runs/inquiries/package --input new.csv --output scored.csv");
  verb->callback([&invocation, words] {
    invocation.run = [&invocation, words]() -> Result<int> {
      PredictWords& given = *words;
      if (given.request.texts.empty() && given.request.input.empty()) {
        return Error{ErrorCode::kInvalidArgument, "predict needs a text, or a file with --input",
                     "tailor predict PACKAGE \"a text\""};
      }
      if (!given.request.texts.empty() && !given.request.input.empty()) {
        return Error{ErrorCode::kInvalidArgument, "predict takes either texts or --input, not both", ""};
      }
      if (given.delimiter == "tab") given.delimiter = "\t";
      if (given.delimiter.size() > 1)
        return Error{ErrorCode::kInvalidArgument, "--delimiter takes one character or the word tab", ""};
      if (!given.delimiter.empty()) given.request.delimiter = given.delimiter[0];
      if (given.min_confidence >= 0) given.request.min_confidence = given.min_confidence;
      const bool show = isatty(STDERR_FILENO) != 0 && !given.quiet && !given.request.input.empty();
      const ProgressFn progress = [&](const Progress& p) {
        if (show && p.total > 0) fmt::print(stderr, "\r\033[K{}: {:.0f} of {:.0f}", p.stage, p.done, p.total);
      };
      TAILOR_TRY(PackageManifest manifest, read_package(given.request.package));
      if (answers_tags(manifest)) return answer_tags(given, std::move(manifest), progress, invocation.cancel);
      if (answers_questions(manifest)) return answer_questions(given, std::move(manifest), progress, invocation.cancel);
      auto summary = predict(given.request, std::move(manifest), progress, invocation.cancel);
      if (show) fmt::print(stderr, "\r\033[K");
      if (!summary) return summary.error();
      if (given.request.output.empty()) {
        for (const auto& row : summary->rows) print_row(row, *summary, given);
      } else {
        TAILOR_CHECK(write_predictions_csv(given.request.output, *summary));
      }
      if (!given.quiet && !given.request.input.empty() && !given.json) {
        std::string line =
            fmt::format("{} rows in {} ({:.2f} ms a row)", summary->rows.size(), human_seconds(summary->seconds),
                        summary->rows.empty() ? 0.0 : summary->rows.front().milliseconds);
        if (summary->abstained > 0) line += fmt::format(", {} left open", summary->abstained);
        if (summary->compared > 0 && summary->manifest.target.kind == PackageTarget::Kind::kNumber)
          line += fmt::format(", RMSE {:.6g} over {} rows",
                              std::sqrt(summary->squared_error / static_cast<double>(summary->compared)),
                              summary->compared);
        else if (summary->compared > 0)
          line += fmt::format(", accuracy {:.2f} % ({} of {})",
                              100.0 * static_cast<double>(summary->correct) / static_cast<double>(summary->compared),
                              summary->correct, summary->compared);
        if (!given.request.output.empty()) line += fmt::format(", written to {}", given.request.output.string());
        fmt::print("{}\n", line);
      }
      return 0;
    };
  });
}

}  // namespace tailor
