#include "fit/teacher.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <numeric>

#include "core/json.h"
#include "data/csv.h"
#include "text/unicode.h"

namespace tailor {
namespace {

namespace fs = std::filesystem;

constexpr double kSumTolerance = 1e-2;  // of answers written with few digits
constexpr std::string_view kColumn = "p:";

/// Place of every one of `wanted` among `names`.
Result<std::vector<std::size_t>> places_of(const std::vector<std::string>& wanted,
                                           const std::vector<std::string>& names, const fs::path& source) {
  const auto differ = [&](std::string what) {
    return Error{ErrorCode::kInvalidArgument, fmt::format("the teacher {} {}", source.string(), what),
                 "a teacher must answer with the labels of the data, no more and no fewer"};
  };
  std::vector<std::size_t> places;
  for (const std::string& label : wanted) {
    const auto found = std::find(names.begin(), names.end(), label);
    if (found == names.end()) return differ(fmt::format("does not know the label '{}' of the data", label));
    places.push_back(static_cast<std::size_t>(found - names.begin()));
  }
  for (const std::string& name : names) {
    if (std::find(wanted.begin(), wanted.end(), name) == wanted.end())
      return differ(fmt::format("has the label '{}', which no row of the data has", name));
  }
  return places;
}

std::string extension_of(const fs::path& file) {
  return fold(file.extension().string());
}

}  // namespace

Result<Teacher> Teacher::open(const fs::path& source, const std::vector<std::string>& labels, int threads) {
  Teacher teacher;
  teacher.labels_ = labels;
  std::error_code ignored;
  if (fs::is_directory(source, ignored)) {
    TAILOR_TRY(LoadedPackage package, load_package(source, {.threads = threads}));
    teacher.manifest_ = std::move(package.manifest);
    teacher.classifier_ = std::move(package.classifier);
    TAILOR_TRY(teacher.own_place_, places_of(labels, teacher.manifest_.labels, source));
    return teacher;
  }
  if (!fs::exists(source, ignored)) {
    return Error{ErrorCode::kNotFound, fmt::format("--teacher {}: there is no such package or file", source.string()),
                 "name a package that `tailor fit` or `tailor tune` made, or a file of its predictions"};
  }
  TAILOR_CHECK(teacher.read_file(source));
  return teacher;
}

Status Teacher::add(const fs::path& file, std::size_t line, std::vector<float> p, const std::string* text,
                    const std::int64_t* row) {
  const double sum = std::accumulate(p.begin(), p.end(), 0.0);
  const bool proper = std::all_of(p.begin(), p.end(), [](float value) { return value >= 0; });  // false for NaN
  if (!proper || !(std::abs(sum - 1) <= kSumTolerance)) {
    return Error{ErrorCode::kCorruptData,
                 fmt::format("{}:{}: the probabilities of the labels should sum to 1, they sum to {:g}", file.string(),
                             line, sum),
                 ""};
  }
  for (float& value : p) value = static_cast<float>(value / sum);
  if (text != nullptr)
    by_text_.emplace(duplicate_key(*text), std::move(p));
  else
    by_row_.emplace(*row, std::move(p));
  return {};
}

Status Teacher::read_file(const fs::path& file) {
  const auto bad = [&](std::size_t line, std::string what) {
    return Error{ErrorCode::kCorruptData, fmt::format("{}:{}: {}", file.string(), line, what),
                 "docs/methods/distill.md shows the shapes of a teacher's answers"};
  };
  if (extension_of(file) == ".csv") {
    TAILOR_TRY(const CsvTable table, CsvTable::read(file));
    TAILOR_TRY(const std::size_t text_column, table.column("text"));
    std::vector<std::string> names;
    std::vector<std::size_t> columns;
    for (std::size_t c = 0; c < table.columns().size(); ++c) {
      if (!table.columns()[c].starts_with(kColumn)) continue;
      names.push_back(table.columns()[c].substr(kColumn.size()));
      columns.push_back(c);
    }
    TAILOR_TRY(const std::vector<std::size_t> places, places_of(labels_, names, file));
    for (std::size_t r = 0; r < table.rows(); ++r) {
      std::vector<float> p;
      for (const std::size_t place : places) {
        const std::string_view cell = table.cell(r, columns[place]);
        float value = 0;
        const auto [end, failed] = std::from_chars(cell.data(), cell.data() + cell.size(), value);
        if (failed != std::errc() || end != cell.data() + cell.size())
          return bad(table.line(r), fmt::format("'{}' is no probability", cell));
        p.push_back(value);
      }
      const std::string text(table.cell(r, text_column));
      TAILOR_CHECK(add(file, table.line(r), std::move(p), &text, nullptr));
    }
    return {};
  }
  TAILOR_TRY(const std::vector<Json> lines, read_jsonl(file));
  if (lines.empty()) return bad(1, "it holds no answers");
  for (std::size_t i = 0; i < lines.size(); ++i) {
    const Json& line = lines[i];
    const auto get = [&](const char* key) { return line.is_object() ? line.value(key, Json()) : Json(); };
    const Json text = get("text"), row = get("row"), named = get("probabilities"), listed = get("p");
    std::vector<float> p;
    const auto numbers = [](const Json& values) {
      return std::all_of(values.begin(), values.end(), [](const Json& v) { return v.is_number(); });
    };
    if (named.is_object() && numbers(named)) {
      std::vector<std::string> names;
      for (const auto& [name, value] : named.items()) names.push_back(name);
      TAILOR_TRY(const std::vector<std::size_t> places, places_of(labels_, names, file));
      for (const std::size_t place : places) p.push_back(named.at(names[place]).get<float>());
    } else if (listed.is_array() && listed.size() == labels_.size() && numbers(listed)) {
      p = listed.get<std::vector<float>>();
    } else {
      return bad(i + 1, fmt::format("expected \"probabilities\" by label, or \"p\" with {} numbers", labels_.size()));
    }
    if (text.is_string()) {
      const auto words = text.get<std::string>();
      TAILOR_CHECK(add(file, i + 1, std::move(p), &words, nullptr));
    } else if (row.is_number_integer()) {
      const auto number = row.get<std::int64_t>();
      TAILOR_CHECK(add(file, i + 1, std::move(p), nullptr, &number));
    } else {
      return bad(i + 1, "expected \"text\" or \"row\", to know which row is answered");
    }
  }
  return {};
}

Result<TeacherAnswers> Teacher::answer(std::span<const std::string> texts, std::span<const std::int64_t> rows,
                                       const ProgressFn& progress, const CancelToken& cancel) {
  TeacherAnswers out;
  out.probabilities = Matrix(texts.size(), labels_.size());
  out.given.assign(texts.size(), 0);
  if (classifier_ != nullptr) {
    TAILOR_TRY(const Matrix p, classifier_->probabilities(texts, progress, cancel));
    for (std::size_t i = 0; i < texts.size(); ++i) {
      for (std::size_t l = 0; l < labels_.size(); ++l) out.probabilities.row(i)[l] = p.row(i)[own_place_[l]];
    }
    out.given.assign(texts.size(), 1);
    out.answered = texts.size();
    return out;
  }
  for (std::size_t i = 0; i < texts.size(); ++i) {
    const std::vector<float>* p = nullptr;
    if (const auto by_row = by_row_.find(rows[i]); by_row != by_row_.end()) p = &by_row->second;
    if (const auto by_text = by_text_.find(duplicate_key(texts[i])); by_text != by_text_.end()) p = &by_text->second;
    if (p == nullptr) continue;
    std::copy(p->begin(), p->end(), out.probabilities.row(i).begin());
    out.given[i] = 1;
    ++out.answered;
  }
  return out;
}

TeacherSaw what_it_saw(const PackageManifest& teacher, const PreparedData& data, std::uint64_t seed) {
  TeacherSaw saw;
  const Json& about = teacher.data;
  if (!about.is_object() || !about.contains("files") || !about["files"].is_array() || about["files"].empty())
    return saw;
  const Json& learnt_from = about["files"][0];  // the others are its validation and test files
  const std::string hash = learnt_from.is_object() ? learnt_from.value("sha256", std::string()) : std::string();
  if (hash.empty()) return saw;
  saw.known = true;
  const bool fitted_on_validation = about.value("fitted_on", std::string()) != "train";
  const RowSet train = data.train(), validation = data.validation(), test = data.test();
  const std::size_t expected = train.size() + (fitted_on_validation ? validation.size() : 0);
  const bool same_split = hash == data.file_hashes[0] && about.value("seed", std::uint64_t{0}) == seed &&
                          about.value("rows", std::size_t{0}) == expected;
  if (same_split) return {true, true, fitted_on_validation, false};
  // Any row of a file that it learnt from may be among those that it learnt from.
  const auto in_its_file = [&](const RowSet& rows) {
    return std::any_of(rows.ids.begin(), rows.ids.end(),
                       [&](std::uint32_t id) { return data.file_hashes[data.dataset.file_of[id]] == hash; });
  };
  saw.train = in_its_file(train);
  saw.validation = in_its_file(validation);
  saw.test = in_its_file(test);
  return saw;
}

}  // namespace tailor
