#pragma once
/// What was found in the data: counts, distribution of labels, lengths, and findings a person should act on.

#include <cstddef>
#include <cstdint>
#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/result.h"

namespace tailor {

enum class Severity : std::uint8_t { kNote, kWarning, kError };  // an error: the data cannot be used as it is

struct Finding {
  Severity severity = Severity::kNote;
  std::string code;                  // stable, for programs: "similar_labels", "single_row_class", ...
  std::string message;               // one sentence
  std::string hint;                  // what to do; may be empty
  std::size_t count = 0;             // rows (or labels) it concerns
  std::vector<std::uint32_t> lines;  // of the file, at most kExampleLines of them
};
inline constexpr std::size_t kExampleLines = 10;

struct LabelCount {
  std::string label;
  std::size_t rows = 0;
};

/// Percentiles by linear interpolation, as numpy.percentile.
struct LengthSummary {
  double mean = 0;
  double p5 = 0, p50 = 0, p90 = 0, p95 = 0, p99 = 0;
  std::size_t min = 0, max = 0;
};
LengthSummary summarise_lengths(std::vector<std::size_t> lengths);  // all zero for an empty vector

struct DataReport {
  std::string file;
  std::string encoding;
  char delimiter = ',';
  std::vector<std::string> columns;
  std::size_t rows_read = 0;
  std::size_t rows_kept = 0;
  std::size_t empty_texts = 0;             // dropped (kept by load_texts)
  std::size_t empty_labels = 0;            // dropped
  std::size_t exact_duplicates = 0;        // rows whose text stood before (duplicate_key)
  std::size_t near_duplicates = 0;         // rows, exact ones not counted, with a near duplicate
  std::size_t conflicting_duplicates = 0;  // rows whose text stands with more than one label
  std::vector<LabelCount> labels;          // in the order of Dataset::label_names
  double imbalance_ratio = 0;              // rows of the largest class / rows of the smallest
  LengthSummary characters;                // code points
  std::optional<LengthSummary> tokens;     // where a tokenizer was given
  std::vector<Finding> findings;           // errors first, then warnings, then notes

  void add(Finding finding);  // keeps that order
  /// The first error among the findings, as an Error; ok where there is none.
  Status status() const;
};

nlohmann::ordered_json to_json(const DataReport& report);
nlohmann::ordered_json to_json(const Finding& finding);

struct Dataset;
struct DuplicateGroups;
using TokenCounter = std::function<std::size_t(std::string_view)>;

/// Fills everything but the counts of reading: duplicates, labels, lengths, findings. Called once on the training data.
/// Findings: single_class, all_duplicates, labels_all_distinct (errors); single_row_class, small_class, imbalance,
/// conflicting_duplicates, similar_labels, numeric_labels, too_many_labels, long_labels (warnings; similar_labels is a
/// note where both labels have many rows); exact_duplicates, near_duplicates (notes). `duplicates` is of data.texts.
void check_dataset(const Dataset& data, const DuplicateGroups& duplicates, DataReport& report,
                   const TokenCounter& count_tokens = {});

/// Pairs of labels that look like one label spelled in two ways: equal without case, spaces and punctuation, or one
/// edit apart (letters only: "q1" and "q2" are not). `rows` per label.
struct SimilarLabels {
  std::size_t first = 0, second = 0;  // positions in `names`, the one with fewer rows first
  bool same_letters = false;          // differ in case, spaces and punctuation only
};
std::vector<SimilarLabels> find_similar_labels(std::span<const std::string> names, std::span<const std::size_t> rows);

}  // namespace tailor
