#pragma once
/// The data of one run as every candidate sees it: rows, labels, and which part each row stands in.

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "core/result.h"
#include "data/dataset.h"
#include "data/leaks.h"
#include "data/report.h"
#include "data/split.h"
#include "fit/options.h"

namespace tailor {

/// Rows chosen from the data, by their number in the Dataset.
struct RowSet {
  std::vector<std::uint32_t> ids;
  std::size_t size() const { return ids.size(); }
};

struct PreparedData {
  Dataset dataset;  // the data file's rows, then --validation's, then --test's
  SplitPlan split;
  std::vector<std::string> file_hashes;  // SHA-256 of dataset.files

  const std::vector<std::string>& label_names() const { return dataset.label_names; }
  RowSet train() const { return part(Part::kTrain); }
  RowSet validation() const { return part(Part::kValidation); }  // empty with k-fold
  RowSet test() const { return part(Part::kTest); }
  RowSet train_and_validation() const;
  bool kfold() const { return split.mode == SplitMode::kKFold; }
  std::vector<std::string> texts_of(const RowSet& rows) const;
  std::vector<int> labels_of(const RowSet& rows) const;

 private:
  RowSet part(Part wanted) const;
};

/// Reads the files, checks them (findings go to `report`), and makes the split (or takes the files as parts).
/// `leaks` gets the pairs of texts that stand in two parts.
Result<PreparedData> prepare_data(const DataOptions& options, DataReport& report, Leaks& leaks);

/// The same rows and parts as an earlier prepare_data of the run: reads the files again, checks their hashes against
/// `hashes`, and takes the parts from the manifest.
Result<PreparedData> reload_data(const DataOptions& options, const std::filesystem::path& manifest,
                                 const std::vector<std::string>& hashes);

/// An error that names the first of `files` whose SHA-256 (`hashes`) is not the one that the run recorded.
Status require_unchanged(const std::vector<std::string>& files, const std::vector<std::string>& hashes,
                         const std::vector<std::string>& recorded);

/// For a package's manifest: the files with their hashes, and the rows that the package learnt from.
Json provenance(const PreparedData& data, const RowSet& rows, std::string_view fitted_on, std::uint64_t seed);

/// `n` rows of `from`, stratified by label, chosen by the seed alone; all rows where there are no more than n.
/// Ascending.
RowSet stratified_sample(const PreparedData& data, const RowSet& from, std::size_t n, std::uint64_t seed);

}  // namespace tailor
