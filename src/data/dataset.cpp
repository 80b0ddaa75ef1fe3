#include "data/dataset.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <unordered_map>

#include "data/text_template.h"
#include "text/edit_distance.h"
#include "text/unicode.h"

namespace tailor {
namespace {

void describe_table(const CsvTable& table, DataReport& report) {
  report.file = table.file();
  report.encoding = table.encoding();
  report.delimiter = table.delimiter();
  report.columns = table.columns();
  report.rows_read = table.rows();
}

void add_line(std::vector<std::uint32_t>& lines, std::uint32_t line) {
  if (lines.size() < kExampleLines) lines.push_back(line);
}

void report_dropped(DataReport& report, std::size_t count, std::string_view code, std::string_view what,
                    std::vector<std::uint32_t> lines, std::string_view consequence) {
  if (count == 0) return;
  report.add({Severity::kWarning, std::string(code),
              fmt::format("{} of {} rows {} {} and {} {} (line {}{})", count, report.rows_read,
                          count == 1 ? "has" : "have", what, count == 1 ? "was" : "were", consequence,
                          fmt::join(lines, ", "), count > lines.size() ? ", …" : ""),
              "", count, std::move(lines)});
}

/// Names sorted bytewise, indices changed to match.
void sort_labels(Dataset& data) {
  std::vector<std::int32_t> order(data.label_names.size());
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = static_cast<std::int32_t>(i);
  std::sort(order.begin(), order.end(), [&](std::int32_t a, std::int32_t b) {
    return data.label_names[static_cast<std::size_t>(a)] < data.label_names[static_cast<std::size_t>(b)];
  });
  std::vector<std::int32_t> place(order.size());
  std::vector<std::string> names(order.size());
  for (std::size_t i = 0; i < order.size(); ++i) {
    place[static_cast<std::size_t>(order[i])] = static_cast<std::int32_t>(i);
    names[i] = std::move(data.label_names[static_cast<std::size_t>(order[i])]);
  }
  data.label_names = std::move(names);
  for (std::int32_t& label : data.labels) label = place[static_cast<std::size_t>(label)];
}

}  // namespace

Result<Dataset> load_dataset(const std::filesystem::path& file, const ColumnSpec& spec, const CsvOptions& options,
                             DataReport& report) {
  TAILOR_TRY(const CsvTable table, CsvTable::read(file, options));
  describe_table(table, report);
  TAILOR_TRY(const TextTemplate text_template, TextTemplate::make(spec.text_columns, spec.text_template, table));
  if (spec.label_column.empty()) {
    return Error{ErrorCode::kInvalidArgument, "no label column was named",
                 fmt::format("name one of '{}' with --label", fmt::join(table.columns(), "', '"))};
  }
  TAILOR_TRY(const std::size_t label_column, table.column(spec.label_column));

  Dataset data;
  data.files.push_back(table.file());
  data.texts.reserve(table.rows());
  data.labels.reserve(table.rows());
  data.lines.reserve(table.rows());
  std::unordered_map<std::string_view, std::int32_t> known;  // views into the table
  std::vector<std::uint32_t> empty_texts, empty_labels;
  std::string text;
  for (std::size_t row = 0; row < table.rows(); ++row) {
    text_template.render(row, text);
    if (is_blank(text)) {
      ++report.empty_texts;
      add_line(empty_texts, table.line(row));
      continue;
    }
    const std::string_view label = trim(table.cell(row, label_column));
    if (is_blank(label)) {
      ++report.empty_labels;
      add_line(empty_labels, table.line(row));
      continue;
    }
    const auto [entry, added] = known.emplace(label, static_cast<std::int32_t>(data.label_names.size()));
    if (added) data.label_names.emplace_back(label);
    data.texts.push_back(text);
    data.labels.push_back(entry->second);
    data.lines.push_back(table.line(row));
  }
  if (data.texts.empty()) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("{}: none of the {} rows has both a text and a label ({} without text, {} without label)",
                             table.file(), table.rows(), report.empty_texts, report.empty_labels),
                 "look whether the text and label columns are the right ones"};
  }
  data.file_of.assign(data.texts.size(), 0);
  sort_labels(data);
  report.rows_kept = data.texts.size();
  report_dropped(report, report.empty_texts, "empty_texts", "no text", std::move(empty_texts), "left out");
  report_dropped(report, report.empty_labels, "empty_labels", "no label", std::move(empty_labels), "left out");
  return data;
}

Status append_dataset(Dataset& to, Dataset part, std::string_view part_name) {
  std::vector<std::int32_t> place(part.label_names.size());
  std::map<std::string, std::size_t> unknown;  // label, rows
  for (std::size_t i = 0; i < part.label_names.size(); ++i) {
    const auto found = std::lower_bound(to.label_names.begin(), to.label_names.end(), part.label_names[i]);
    if (found != to.label_names.end() && *found == part.label_names[i]) {
      place[i] = static_cast<std::int32_t>(found - to.label_names.begin());
    } else {
      unknown[part.label_names[i]] =
          static_cast<std::size_t>(std::count(part.labels.begin(), part.labels.end(), static_cast<std::int32_t>(i)));
    }
  }
  if (!unknown.empty()) {
    constexpr std::size_t kShown = 10;
    std::vector<std::string> shown;
    std::string hint;
    for (const auto& [label, rows] : unknown) {
      if (shown.size() < kShown)
        shown.push_back(fmt::format("'{}' ({} row{})", shorten(label, 60), rows, rows == 1 ? "" : "s"));
      if (hint.empty()) {
        if (const std::string nearest = nearest_name(label, to.label_names); !nearest.empty()) {
          hint = fmt::format("is '{}' meant to be '{}'? otherwise add training rows for it or leave its rows out",
                             shorten(label, 60), nearest);
        }
      }
    }
    if (hint.empty()) hint = "add training rows for them, or leave their rows out";
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("the {} {} has {} label{} that no training row has: {}{}", part_name,
                             fmt::join(part.files, ", "), unknown.size(), unknown.size() == 1 ? "" : "s",
                             fmt::join(shown, ", "), unknown.size() > kShown ? ", …" : ""),
                 hint};
  }
  if (to.files.size() + part.files.size() > 255)
    return Error{ErrorCode::kInvalidArgument, "more than 255 data files are given", ""};
  const auto first_file = static_cast<std::uint8_t>(to.files.size());
  to.files.insert(to.files.end(), part.files.begin(), part.files.end());
  for (std::size_t row = 0; row < part.size(); ++row) {
    to.texts.push_back(std::move(part.texts[row]));
    to.labels.push_back(place[static_cast<std::size_t>(part.labels[row])]);
    to.lines.push_back(part.lines[row]);
    to.file_of.push_back(static_cast<std::uint8_t>(first_file + part.file_of[row]));
  }
  return {};
}

Result<PredictionInput> load_texts(const std::filesystem::path& file, const ColumnSpec& spec, const CsvOptions& options,
                                   DataReport& report) {
  TAILOR_TRY(CsvTable read, CsvTable::read(file, options));
  PredictionInput input{std::move(read), {}, {}, {}};
  const CsvTable& table = input.table;
  describe_table(table, report);
  TAILOR_TRY(const TextTemplate text_template, TextTemplate::make(spec.text_columns, spec.text_template, table));
  std::vector<std::uint32_t> empty_texts;
  input.texts.resize(table.rows());
  input.lines.resize(table.rows());
  for (std::size_t row = 0; row < table.rows(); ++row) {
    text_template.render(row, input.texts[row]);
    input.lines[row] = table.line(row);
    if (is_blank(input.texts[row])) {
      ++report.empty_texts;
      add_line(empty_texts, table.line(row));
    }
  }
  const auto label_column = std::find(table.columns().begin(), table.columns().end(), spec.label_column);
  if (!spec.label_column.empty() && label_column != table.columns().end()) {
    input.labels.emplace(table.rows());
    for (std::size_t row = 0; row < table.rows(); ++row) {
      (*input.labels)[row] = trim(table.cell(row, static_cast<std::size_t>(label_column - table.columns().begin())));
      report.empty_labels += (*input.labels)[row].empty() ? 1 : 0;
    }
  }
  report.rows_kept = table.rows();
  report_dropped(report, report.empty_texts, "empty_texts", "no text", std::move(empty_texts), "kept");
  return input;
}

}  // namespace tailor
