#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <numeric>

#include "apps/tailor/verbs.h"
#include "core/json.h"
#include "fit/budget.h"
#include "recipes/predict.h"

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

}  // namespace

void add_predict(CLI::App& app, Invocation& invocation) {
  auto* verb = app.add_subcommand("predict", "answer texts with a package that fit made");
  auto words = std::make_shared<PredictWords>();
  PredictWords& w = *words;
  verb->add_option("package", w.request.package, "package directory")->required()->type_name("PACKAGE");
  verb->add_option("texts", w.request.texts, "texts to answer")->type_name("TEXT");
  verb->add_option("--input", w.request.input, "CSV file with texts")->type_name("CSV");
  verb->add_option("--output", w.request.output, "CSV file to write: label, probability of every label, milliseconds")
      ->type_name("CSV");
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
      auto summary = predict(given.request, progress, invocation.cancel);
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
