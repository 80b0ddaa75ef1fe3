#pragma once
/// Labelled texts in memory, and texts to predict.

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/result.h"
#include "data/csv.h"
#include "data/report.h"

namespace tailor {

/// Rows of one or several files. A row's number is its place in these vectors; all per-row results use it.
struct Dataset {
  std::vector<std::string> texts;        // as written, UTF-8; never blank
  std::vector<std::int32_t> labels;      // index into label_names
  std::vector<std::uint32_t> lines;      // 1-based line of the file on which the row begins
  std::vector<std::string> label_names;  // sorted bytewise; every name has a row
  std::vector<std::uint8_t> file_of;     // per row, index into files
  std::vector<std::string> files;        // as given by the user
  std::size_t size() const { return texts.size(); }
};

/// Which columns make the text, and which is the label.
struct ColumnSpec {
  std::vector<std::string> text_columns;  // joined by line breaks where there is no template
  std::string text_template;              // "{subject}: {body}"; {{ and }} stand for braces; empty: none
  std::string label_column;
};

/// Reads rows, builds texts, trims labels. Rows with a blank text or label are dropped, with counts and a finding in
/// the report ("empty_texts", "empty_labels"); an error where none remains. Fills the report's counts of reading; the
/// rest is check_dataset()'s. Errors: those of CsvTable::read, a column that is not there (text, label or in the
/// template, with the names there are), a template without a column or with an unclosed brace.
Result<Dataset> load_dataset(const std::filesystem::path& file, const ColumnSpec& spec, const CsvOptions& options,
                             DataReport& report);

/// Appends the rows of `part`, whose labels must all be known to `to` ("validation file", "test file" in the error,
/// with the unknown labels, their rows and the nearest known name).
Status append_dataset(Dataset& to, Dataset part, std::string_view part_name);

/// Rows to predict. Every row of the table is here, blank texts too, so that answers can be written beside the input.
struct PredictionInput {
  CsvTable table;  // for columns to pass through; row i of the table is text i
  std::vector<std::string> texts;
  std::vector<std::uint32_t> lines;
  std::optional<std::vector<std::string>> labels;  // trimmed, "" where empty; where spec.label_column is in the file
};
/// Like load_dataset; a label column that is not there is no error. The report counts blank texts.
Result<PredictionInput> load_texts(const std::filesystem::path& file, const ColumnSpec& spec, const CsvOptions& options,
                                   DataReport& report);

}  // namespace tailor
