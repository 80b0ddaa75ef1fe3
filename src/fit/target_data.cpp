#include "fit/target_data.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <numeric>
#include <set>

#include "data/dataset.h"
#include "text/edit_distance.h"

namespace tailor {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kStrata = 10, kRowsOfStratum = 20;

std::string_view trimmed(std::string_view s) {
  const auto first = s.find_first_not_of(" \t\r\n");
  return first == std::string_view::npos ? std::string_view()
                                         : s.substr(first, s.find_last_not_of(" \t\r\n") - first + 1);
}

Error bad_cell(const fs::path& file, std::uint32_t line, std::string what, std::string hint) {
  return {ErrorCode::kInvalidArgument, fmt::format("{}:{}: {}", file.string(), line, what), std::move(hint)};
}

struct Rows {
  std::vector<std::string> texts, cells;
  std::vector<std::uint32_t> lines;
};

/// A file's rows; those without a text, or (numbers) without a cell, are left out.
Result<Rows> read_rows(const TuneOptions& options, const fs::path& file, TargetKind kind,
                       std::vector<std::string>& warnings) {
  DataReport report;
  const ColumnSpec spec{options.text_columns, options.text_template, options.label_column};
  TAILOR_TRY(
      PredictionInput input,
      load_texts(file, spec, {options.delimiter, options.encoding, static_cast<std::size_t>(options.max_text_bytes)},
                 report));
  if (!input.labels) {
    TAILOR_TRY(const std::size_t column, input.table.column(options.label_column));  // names the columns there are
    (void)column;
  }
  Rows rows;
  std::size_t no_text = 0, no_cell = 0;
  for (std::size_t i = 0; i < input.texts.size(); ++i) {
    const bool blank = trimmed(input.texts[i]).find_first_not_of(kPairSeparator) == std::string_view::npos;
    const bool empty = kind == TargetKind::kNumber && (*input.labels)[i].empty();
    no_text += blank ? 1 : 0;
    no_cell += !blank && empty ? 1 : 0;
    if (blank || empty) continue;
    rows.texts.push_back(std::move(input.texts[i]));
    rows.cells.push_back(std::move((*input.labels)[i]));
    rows.lines.push_back(input.lines[i]);
  }
  const auto warn = [&](std::size_t n, const char* what) {
    if (n > 0) warnings.push_back(fmt::format("{}: {} row(s) with {} are left out", file.string(), n, what));
  };
  warn(no_text, "no text");
  warn(no_cell, "no number");
  return rows;
}

Result<float> number_of(const fs::path& file, std::uint32_t line, const std::string& cell) {
  float value = 0;
  const char* end = cell.data() + cell.size();
  const char* begin = cell.data() + (cell.starts_with('+') ? 1 : 0);
  const auto [at, error] = std::from_chars(begin, end, value);
  if (error != std::errc() || at != end || !std::isfinite(value)) {
    return bad_cell(file, line, fmt::format("\"{}\" is not a number", cell.substr(0, 40)),
                    "numbers look like 3, -0.5 or 1e3, with a full stop before the decimals");
  }
  return value;
}

Result<std::vector<std::string>> labels_of_cell(const fs::path& file, std::uint32_t line, const std::string& cell,
                                                const std::string& separator) {
  std::vector<std::string> labels;
  if (cell.starts_with('[')) {
    const Json list = Json::parse(cell, nullptr, /*allow_exceptions=*/false);
    const bool texts =
        list.is_array() && std::all_of(list.begin(), list.end(), [](const Json& v) { return v.is_string(); });
    if (!texts) {
      return bad_cell(file, line, fmt::format("{} is not a list of labels", cell.substr(0, 60)),
                      "write [\"a\", \"b\"], or name what stands between labels with --label-separator");
    }
    for (const Json& label : list) labels.emplace_back(trimmed(label.get<std::string>()));
  } else {
    for (std::size_t from = 0; from <= cell.size();) {
      const std::size_t to = std::min(cell.find(separator, from), cell.size());
      labels.emplace_back(trimmed(std::string_view(cell).substr(from, to - from)));
      from = to + separator.size();
    }
  }
  std::erase(labels, std::string());
  return labels;
}

/// Numbers of ten equal shares; fewer where there are few rows.
std::vector<std::int32_t> number_strata(std::span<const float> numbers) {
  const std::size_t strata = std::clamp(numbers.size() / kRowsOfStratum, std::size_t{2}, kStrata);
  std::vector<std::size_t> order(numbers.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return numbers[a] < numbers[b]; });
  std::vector<std::int32_t> out(numbers.size());
  for (std::size_t i = 0; i < order.size(); ++i) out[order[i]] = static_cast<std::int32_t>(i * strata / order.size());
  return out;
}

}  // namespace

Result<PreparedTargets> prepare_targets(const TuneOptions& options) {
  PreparedTargets data;
  data.kind = options.task == kTaskRegression ? TargetKind::kNumber : TargetKind::kLabelSet;
  std::set<std::string> known;
  std::vector<std::vector<std::string>> sets;
  const std::string separator = options.label_separator.empty() ? "|" : options.label_separator;
  const auto read_file = [&](const fs::path& file, Part part) -> Result<std::size_t> {
    TAILOR_TRY(Rows rows, read_rows(options, file, data.kind, data.warnings));
    for (std::size_t i = 0; i < rows.texts.size(); ++i) {
      if (data.kind == TargetKind::kNumber) {
        TAILOR_TRY(const float value, number_of(file, rows.lines[i], rows.cells[i]));
        data.targets.push_back(value);
      } else {
        TAILOR_TRY(std::vector<std::string> labels, labels_of_cell(file, rows.lines[i], rows.cells[i], separator));
        for (const std::string& label : labels) {
          if (part == Part::kTrain) known.insert(label);
          if (known.contains(label)) continue;
          const std::vector<std::string> names(known.begin(), known.end());
          const std::string nearest = nearest_name(label, names);
          return bad_cell(file, rows.lines[i], fmt::format("the label \"{}\" is not in the training file", label),
                          nearest.empty() ? "" : fmt::format("did you mean \"{}\"?", nearest));
        }
        sets.push_back(std::move(labels));
      }
      data.texts.push_back(std::move(rows.texts[i]));
      data.lines.push_back(rows.lines[i]);
    }
    return rows.lines.size();
  };
  TAILOR_TRY(const GivenParts given, read_files(options, read_file, data));
  if (data.kind == TargetKind::kNumber) {
    data.label_names = {options.label_column};
  } else {
    if (known.empty()) {
      return Error{ErrorCode::kInvalidArgument,
                   fmt::format("{}: no row has a label in column \"{}\"", options.data.string(), options.label_column),
                   "--label names the column, --label-separator what stands between its labels"};
    }
    data.label_names.assign(known.begin(), known.end());
    data.targets.assign(data.rows() * data.width(), 0.0f);
    for (std::size_t r = 0; r < sets.size(); ++r) {
      for (const std::string& label : sets[r]) {
        const auto at = std::lower_bound(data.label_names.begin(), data.label_names.end(), label);
        data.targets[r * data.width() + static_cast<std::size_t>(at - data.label_names.begin())] = 1;
      }
    }
  }
  const auto strata =
      data.kind == TargetKind::kNumber ? number_strata(data.targets) : label_strata(data.targets, data.width());
  TAILOR_TRY(data.parts, split_rows(options, data.texts, strata, given));
  if (data.kind == TargetKind::kLabelSet) return data;
  const auto train = data.rows_of(TokenPart::kTrain);
  double sum = 0, squares = 0;
  for (const auto r : train) sum += data.targets[r];
  data.mean = sum / static_cast<double>(train.size());
  for (const auto r : train) squares += (data.targets[r] - data.mean) * (data.targets[r] - data.mean);
  data.deviation = std::sqrt(squares / static_cast<double>(train.size()));
  if (!(data.deviation > 0)) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("{}: every training row has the number {:g}", options.data.string(), data.mean),
                 "there is nothing to learn; --target names the column"};
  }
  return data;
}

TokenFile tokenize_targets(const PreparedTargets& data, const Tokenizer& tokenizer, const EncoderReading& reading) {
  TokenFile file;
  file.n_labels = data.kind == TargetKind::kNumber ? 0 : static_cast<std::int32_t>(data.width());
  file.vocab_size = static_cast<std::int32_t>(tokenizer.vocabulary_size());
  for (std::size_t r = 0; r < data.rows(); ++r) {
    add_encoder_row(file, tokenizer, data.texts[r], reading, -1, data.parts[r], static_cast<std::int64_t>(r));
    for (std::size_t c = 0; c < data.width(); ++c) {
      const float value = data.targets[r * data.width() + c];
      file.targets.push_back(data.kind == TargetKind::kNumber ? static_cast<float>((value - data.mean) / data.deviation)
                                                              : value);
    }
  }
  return file;
}

}  // namespace tailor
