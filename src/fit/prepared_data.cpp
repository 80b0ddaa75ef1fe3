#include "fit/prepared_data.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>

#include "core/hash.h"
#include "core/rng.h"
#include "data/split_manifest.h"

namespace tailor {
namespace {

ColumnSpec columns_of(const DataOptions& options) {
  return {options.text_columns, options.text_template, options.label_column};
}

CsvOptions csv_of(const DataOptions& options) {
  return {options.delimiter, options.encoding, static_cast<std::size_t>(options.max_text_bytes)};
}

struct Loaded {
  Dataset dataset;
  std::size_t training_rows = 0;  // of the data file
  std::vector<Part> given;        // empty, or per row
};

/// `check` sees the data file's rows alone, before the other files join.
template <typename Check>
Result<Loaded> load_files(const DataOptions& options, DataReport& report, Check&& check) {
  Loaded loaded;
  TAILOR_TRY(loaded.dataset, load_dataset(options.data, columns_of(options), csv_of(options), report));
  loaded.training_rows = loaded.dataset.size();
  check(loaded.dataset);
  TAILOR_CHECK(report.status());
  if (options.validation_file.empty() && options.test_file.empty()) return loaded;
  loaded.given.assign(loaded.training_rows, Part::kTrain);
  const auto join = [&](const std::filesystem::path& file, Part part, std::string_view name) -> Status {
    if (file.empty()) return {};
    DataReport of_part;
    TAILOR_TRY(Dataset rows, load_dataset(file, columns_of(options), csv_of(options), of_part));
    for (auto& finding : of_part.findings) {
      finding.message = fmt::format("{}: {}", name, finding.message);
      report.add(std::move(finding));
    }
    const std::size_t n = rows.size();
    TAILOR_CHECK(append_dataset(loaded.dataset, std::move(rows), name));
    loaded.given.insert(loaded.given.end(), n, part);
    return {};
  };
  TAILOR_CHECK(join(options.validation_file, Part::kValidation, "validation file"));
  TAILOR_CHECK(join(options.test_file, Part::kTest, "test file"));
  return loaded;
}

}  // namespace

RowSet PreparedData::part(Part wanted) const {
  RowSet rows;
  for (std::size_t i = 0; i < split.part.size(); ++i) {
    if (split.part[i] == wanted) rows.ids.push_back(static_cast<std::uint32_t>(i));
  }
  return rows;
}

RowSet PreparedData::train_and_validation() const {
  RowSet rows = train();
  const RowSet more = validation();
  rows.ids.insert(rows.ids.end(), more.ids.begin(), more.ids.end());
  return rows;
}

std::vector<std::string> PreparedData::texts_of(const RowSet& rows) const {
  std::vector<std::string> texts;
  texts.reserve(rows.size());
  for (const auto id : rows.ids) texts.push_back(dataset.texts[id]);
  return texts;
}

std::vector<int> PreparedData::labels_of(const RowSet& rows) const {
  std::vector<int> labels;
  labels.reserve(rows.size());
  for (const auto id : rows.ids) labels.push_back(dataset.labels[id]);
  return labels;
}

Result<PreparedData> prepare_data(const DataOptions& options, DataReport& report, Leaks& leaks) {
  DuplicateGroups duplicates;
  TAILOR_TRY(Loaded loaded, load_files(options, report, [&](const Dataset& training) {
               duplicates = find_duplicates(training.texts);
               check_dataset(training, duplicates, report);
             }));
  PreparedData data;
  data.dataset = std::move(loaded.dataset);
  // Rows of given parts stay where they are, whatever they resemble; find_leaks names those below.
  for (std::size_t i = loaded.training_rows; i < data.dataset.size(); ++i) {
    duplicates.group.push_back(static_cast<std::uint32_t>(i));
    duplicates.exact_of.push_back(static_cast<std::uint32_t>(i));
  }
  const SplitOptions split_options{
      .validation_fraction = options.validation_fraction, .test_fraction = options.test_fraction, .seed = options.seed};
  TAILOR_TRY(data.split, make_split(data.dataset, duplicates, split_options, loaded.given));
  for (const auto& finding : data.split.findings) report.add(finding);
  const RowSet fitted = data.train_and_validation();
  const RowSet tested = data.test();
  if (tested.size() == 0) {
    return Error{ErrorCode::kInvalidArgument, options.data.string() + ": too few rows to split off a test part",
                 "add more rows, or give a test file with --test"};
  }
  leaks = find_leaks(data.dataset, fitted.ids, tested.ids);
  add_leak_findings(data.dataset, leaks, tested.size(), "training", "test", report);
  for (const auto& file : data.dataset.files) {
    TAILOR_TRY(std::string hash, sha256_file(file));
    data.file_hashes.push_back(std::move(hash));
  }
  return data;
}

Status require_unchanged(const std::vector<std::string>& files, const std::vector<std::string>& hashes,
                         const std::vector<std::string>& recorded) {
  for (std::size_t i = 0; i < files.size(); ++i) {
    if (i < recorded.size() && hashes[i] == recorded[i]) continue;
    return Error{ErrorCode::kInvalidArgument, files[i] + " was changed since the run began",
                 "put the old file back, or start a new run"};
  }
  return {};
}

Result<PreparedData> reload_data(const DataOptions& options, const std::filesystem::path& manifest,
                                 const std::vector<std::string>& hashes) {
  DataReport report;
  TAILOR_TRY(Loaded loaded, load_files(options, report, [](const Dataset&) {}));
  PreparedData data;
  data.dataset = std::move(loaded.dataset);
  for (const std::string& file : data.dataset.files) {
    TAILOR_TRY(std::string hash, sha256_file(file));
    data.file_hashes.push_back(std::move(hash));
  }
  TAILOR_CHECK(require_unchanged(data.dataset.files, data.file_hashes, hashes));
  TAILOR_TRY(data.split, read_split_manifest(manifest, data.dataset));
  return data;
}

Json provenance(const PreparedData& data, const RowSet& rows, std::string_view fitted_on, std::uint64_t seed) {
  Json files = Json::array();
  for (std::size_t i = 0; i < data.dataset.files.size(); ++i) {
    files.push_back(Json{{"file", std::filesystem::path(data.dataset.files[i]).filename().string()},
                         {"sha256", data.file_hashes[i]}});
  }
  return Json{{"files", files}, {"rows", rows.size()}, {"fitted_on", fitted_on}, {"seed", seed}};
}

RowSet stratified_sample(const PreparedData& data, const RowSet& from, std::size_t n, std::uint64_t seed) {
  if (from.size() <= n) return from;
  Rng rng(seed, 0x5A3D);
  std::vector<std::vector<std::uint32_t>> by_label(data.label_names().size());
  for (const auto id : from.ids) by_label[static_cast<std::size_t>(data.dataset.labels[id])].push_back(id);
  // Largest remainders: every label gets its share of n rounded down, the rest goes to the largest fractions.
  std::vector<std::size_t> take(by_label.size());
  std::vector<std::pair<double, std::size_t>> fractions;
  std::size_t taken = 0;
  for (std::size_t l = 0; l < by_label.size(); ++l) {
    rng.shuffle(by_label[l]);
    const double share =
        static_cast<double>(by_label[l].size()) * static_cast<double>(n) / static_cast<double>(from.size());
    take[l] = static_cast<std::size_t>(share);
    taken += take[l];
    fractions.emplace_back(share - static_cast<double>(take[l]), l);
  }
  std::sort(fractions.begin(), fractions.end(),
            [](const auto& a, const auto& b) { return a.first != b.first ? a.first > b.first : a.second < b.second; });
  for (std::size_t i = 0; taken < n && i < fractions.size(); ++i) {
    const std::size_t l = fractions[i].second;
    if (take[l] < by_label[l].size()) {
      ++take[l];
      ++taken;
    }
  }
  RowSet sample;
  for (std::size_t l = 0; l < by_label.size(); ++l)
    sample.ids.insert(sample.ids.end(), by_label[l].begin(),
                      by_label[l].begin() + static_cast<std::ptrdiff_t>(take[l]));
  std::sort(sample.ids.begin(), sample.ids.end());
  return sample;
}

}  // namespace tailor
