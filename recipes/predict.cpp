#include "recipes/predict.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <ostream>
#include <set>

#include "core/files.h"
#include "core/system.h"
#include "data/csv.h"
#include "data/dataset.h"
#include "data/report.h"
#include "fit/tuned_encoder.h"
#include "model/tokenizer.h"

namespace tailor {
namespace {

/// What a person reads of a pair: both texts.
std::string printed(const std::string& text) {
  const std::size_t border = text.find(kPairSeparator);
  return border == std::string::npos ? text : text.substr(0, border) + " | " + text.substr(border + 1);
}

/// Fills what the answer is, and counts it where the input has the right one.
void answer_number(PredictSummary& summary, PredictedRow& out, double value) {
  out.value = value;
  out.label = fmt::format("{:.6g}", value);
  out.confidence = 1;
  if (out.expected.empty()) return;
  char* end = nullptr;
  const double expected = std::strtod(out.expected.c_str(), &end);
  if (*end != 0) return;
  ++summary.compared;
  summary.squared_error += (expected - value) * (expected - value);
}

/// As the training read the cell: a JSON list, or names with the separator between them.
std::set<std::string> labels_of(const std::string& cell, const std::string& separator) {
  std::set<std::string> labels;
  const Json list = cell.starts_with('[') ? Json::parse(cell, nullptr, /*allow_exceptions=*/false) : Json();
  if (list.is_array()) {
    for (const Json& label : list) {
      if (label.is_string()) labels.insert(label.get<std::string>());
    }
    return labels;
  }
  for (std::size_t from = 0; from <= cell.size();) {
    const std::size_t to = std::min(cell.find(separator, from), cell.size());
    const std::size_t first = cell.find_first_not_of(' ', from), last = cell.find_last_not_of(' ', to - 1);
    if (to > from && first < to) labels.insert(cell.substr(first, last - first + 1));
    from = to + separator.size();
  }
  return labels;
}

void answer_labels(PredictSummary& summary, PredictedRow& out, const PackageManifest& manifest) {
  for (std::size_t l = 0; l < out.probabilities.size(); ++l) {
    if (out.probabilities[l] < manifest.target.threshold) continue;
    out.label += (out.labels.empty() ? "" : manifest.target.separator) + manifest.labels[l];
    out.labels.push_back(manifest.labels[l]);
  }
  if (out.expected.empty()) return;
  ++summary.compared;
  summary.correct +=
      labels_of(out.expected, manifest.target.separator) == std::set<std::string>(out.labels.begin(), out.labels.end())
          ? 1
          : 0;
}

struct Input {
  std::vector<std::string> texts;
  std::optional<std::vector<std::string>> labels;
};

Result<Input> read_input(const PredictRequest& request, const PackageManifest& manifest) {
  const bool pairs = makes_pairs(manifest.text_template);
  if (request.input.empty()) {
    if (!pairs) return Input{request.texts, std::nullopt};
    if (request.texts.size() % 2 != 0) {
      return Error{ErrorCode::kInvalidArgument, "this package answers pairs of texts, and the last text has no second",
                   "tailor predict PACKAGE \"first text\" \"second text\""};
    }
    Input input;
    for (std::size_t i = 0; i < request.texts.size(); i += 2)
      input.texts.push_back(request.texts[i] + kPairSeparator + request.texts[i + 1]);
    return input;
  }
  if (pairs && (!request.text_columns.empty() || !request.text_template.empty())) {
    return Error{ErrorCode::kInvalidArgument, "this package answers pairs of texts: it knows both columns by name",
                 "leave --text and --template out, and name the columns as in training"};
  }
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

Result<PredictSummary> predict(const PredictRequest& request, PackageManifest manifest, const ProgressFn& progress,
                               const CancelToken& cancel) {
  const int threads = request.threads > 0 ? request.threads : system_info().cores;
  TAILOR_TRY(LoadedPackage package, load_package(request.package, std::move(manifest), {.threads = threads}));
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
    PredictedRow out{.text = printed(input.texts[i]),
                     .confidence = row[best],
                     .probabilities = {row.begin(), row.end()},
                     .milliseconds = milliseconds};
    if (package.manifest.target.kind != PackageTarget::Kind::kLabel) {
      if (input.labels) out.expected = (*input.labels)[i];
      if (package.manifest.target.kind == PackageTarget::Kind::kNumber)
        answer_number(summary, out, row[0]);
      else
        answer_labels(summary, out, package.manifest);
      summary.rows.push_back(std::move(out));
      continue;
    }
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
    const bool number = summary.manifest.target.kind == PackageTarget::Kind::kNumber;
    std::vector<std::string> cells{"row", "value"};
    if (!number) {
      cells = {"row", "label", "confidence"};
      for (const auto& label : summary.manifest.labels) cells.push_back("p:" + label);
    }
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
      cells.assign({std::to_string(i + 1), row.label});
      if (!number) {
        cells.push_back(fmt::format("{:.6f}", row.confidence));
        for (const float value : row.probabilities) cells.push_back(fmt::format("{:.6g}", value));
      }
      cells.push_back(fmt::format("{:.3f}", row.milliseconds));
      if (expected) cells.push_back(row.expected);
      cells.push_back(row.text);
      write();
    }
    return Status{};
  });
}

}  // namespace tailor
