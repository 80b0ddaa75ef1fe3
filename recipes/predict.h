#pragma once
/// Recipe: answer texts with a package, one at a time or a whole file.

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "core/cancel.h"
#include "core/progress.h"
#include "core/result.h"
#include "fit/package.h"

namespace tailor {

struct PredictRequest {
  std::filesystem::path package;
  std::vector<std::string> texts;         // given on the command line; packages of pairs take them in twos
  std::filesystem::path input;            // CSV; empty: texts
  std::filesystem::path output;           // CSV; empty: standard output is the caller's work
  std::vector<std::string> text_columns;  // empty: as the package was fitted
  std::string text_template;
  std::string label_column;  // of the input, for a score; empty: none
  std::string encoding;
  char delimiter = 0;
  std::optional<double> min_confidence;  // below it the answer is left open; empty: as the package says
  int threads = 0;
};

struct PredictedRow {
  std::string text;
  std::string label;      // empty: abstained
  std::string expected;   // where the input has it
  double confidence = 0;  // probability of the most likely label
  std::vector<float> probabilities;
  std::vector<std::string> labels;  // packages of several labels: those that hold; `label` joins them
  double value = 0;                 // packages of a number; `label` is it in print
  double milliseconds = 0;          // of its batch, shared by the rows of the batch
};

struct PredictSummary {
  PackageManifest manifest;
  std::vector<PredictedRow> rows;
  std::size_t abstained = 0;
  std::size_t compared = 0, correct = 0;  // where the input has labels; abstentions count as wrong
  double squared_error = 0;               // packages of a number: sum over the compared rows
  double seconds = 0;
};

/// `manifest`: of read_package(). Packages of tags: recipes/predict_tags.h.
Result<PredictSummary> predict(const PredictRequest& request, PackageManifest manifest, const ProgressFn& progress,
                               const CancelToken& cancel);

/// row,label,confidence,p:<label>…,milliseconds[,expected],text as CSV; several labels are joined by the separator, a
/// package of a number has the column value in the place of label, confidence and probabilities. Atomic.
Status write_predictions_csv(const std::filesystem::path& file, const PredictSummary& summary);

}  // namespace tailor
