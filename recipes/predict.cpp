#include "recipes/predict.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <ostream>

#include "core/files.h"
#include "core/system.h"
#include "data/csv.h"
#include "data/dataset.h"
#include "data/report.h"

namespace tailor {
namespace {

struct Input {
  std::vector<std::string> texts;
  std::optional<std::vector<std::string>> labels;
};

Result<Input> read_input(const PredictRequest& request, const PackageManifest& manifest) {
  if (request.input.empty()) return Input{request.texts, std::nullopt};
  ColumnSpec spec;
  spec.text_columns = request.text_columns.empty() ? manifest.text_columns : request.text_columns;
  spec.text_template =
      request.text_template.empty() && request.text_columns.empty() ? manifest.text_template : request.text_template;
  spec.label_column = request.label_column;
  DataReport report;
  TAILOR_TRY(PredictionInput input,
             load_texts(request.input, spec, {.delimiter = request.delimiter, .encoding = request.encoding}, report));
  return Input{std::move(input.texts), std::move(input.labels)};
}

}  // namespace

Result<PredictSummary> predict(const PredictRequest& request, const ProgressFn& progress, const CancelToken& cancel) {
  const int threads = request.threads > 0 ? request.threads : system_info().cores;
  TAILOR_TRY(LoadedPackage package, load_package(request.package, {.threads = threads}));
  TAILOR_TRY(const Input input, read_input(request, package.manifest));
  const auto start = std::chrono::steady_clock::now();
  TAILOR_TRY(const Matrix p, package.classifier->probabilities(input.texts, progress, cancel));
  PredictSummary summary;
  summary.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  const double threshold = request.min_confidence.value_or(package.manifest.min_confidence);
  const double milliseconds =
      input.texts.empty() ? 0 : 1000 * summary.seconds / static_cast<double>(input.texts.size());
  for (std::size_t i = 0; i < input.texts.size(); ++i) {
    const auto row = p.row(i);
    const std::size_t best = argmax(row);
    PredictedRow out{input.texts[i], "", "", row[best], {row.begin(), row.end()}, milliseconds};
    if (out.confidence >= threshold)
      out.label = package.manifest.labels[best];
    else
      ++summary.abstained;
    if (input.labels) {
      out.expected = (*input.labels)[i];
      if (!out.expected.empty()) {
        ++summary.compared;
        summary.correct += out.expected == out.label ? 1 : 0;
      }
    }
    summary.rows.push_back(std::move(out));
  }
  summary.manifest = std::move(package.manifest);
  return summary;
}

Status write_predictions_csv(const std::filesystem::path& file, const PredictSummary& summary) {
  const bool expected =
      std::any_of(summary.rows.begin(), summary.rows.end(), [](const PredictedRow& r) { return !r.expected.empty(); });
  return write_stream_atomic(file, [&](std::ostream& out) {
    std::vector<std::string> cells{"row", "label", "confidence"};
    for (const auto& label : summary.manifest.labels) cells.push_back("p:" + label);
    cells.emplace_back("milliseconds");
    if (expected) cells.emplace_back("expected");
    cells.emplace_back("text");
    std::vector<std::string_view> views;
    const auto write = [&] {
      views.assign(cells.begin(), cells.end());
      write_csv_row(out, views);
    };
    write();
    for (std::size_t i = 0; i < summary.rows.size(); ++i) {
      const PredictedRow& row = summary.rows[i];
      cells.assign({std::to_string(i + 1), row.label, fmt::format("{:.6f}", row.confidence)});
      for (const float value : row.probabilities) cells.push_back(fmt::format("{:.6g}", value));
      cells.push_back(fmt::format("{:.3f}", row.milliseconds));
      if (expected) cells.push_back(row.expected);
      cells.push_back(row.text);
      write();
    }
    return Status{};
  });
}

}  // namespace tailor
