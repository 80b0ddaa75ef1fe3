#pragma once
/// Training, validation and test parts (or folds), made once, stratified by label, with no text in two parts.

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/result.h"
#include "data/dataset.h"
#include "data/near_duplicates.h"
#include "data/report.h"

namespace tailor {

enum class Part : std::uint8_t { kTrain = 0, kValidation = 1, kTest = 2 };  // numbers are not on disk, names are
enum class SplitMode : std::uint8_t { kHoldout, kKFold };
std::string_view name_of(Part part);       // "train", "validation", "test"
std::string_view name_of(SplitMode mode);  // "holdout", "kfold"

struct SplitOptions {
  double validation_fraction = 0.15;  // of the rows that are split, in (0, 1); unused where a validation part is given
  double test_fraction = 0.20;        // of the rows that are split, in [0, 1); unused where a test part is given
  int folds = 5;                      // 2 to 254; fewer where the smallest class has fewer rows
  std::uint64_t seed = 1;
  std::size_t min_rows_per_class_for_holdout =
      20;  // smallest class of the training rows; below: folds instead of a validation part
};

inline constexpr std::uint8_t kNoFold = 255;

struct SplitPlan {
  SplitMode mode = SplitMode::kHoldout;
  int folds = 0;  // kfold: number of folds
  std::uint64_t seed = 0;
  std::vector<Part> part;  // per row
  /// Per row. kfold: the fold in which a training row is held out; kNoFold for the rows of other parts, and for
  /// training rows that are in the training part of every fold (classes that have too few rows). holdout: kNoFold
  /// throughout.
  std::vector<std::uint8_t> fold;
  std::vector<Finding> findings;  // warnings train_only_class, class_not_in_test, class_not_in_validation; note kfold

  std::vector<std::uint32_t> rows_of(Part wanted) const;  // ascending
  std::vector<std::uint32_t> fold_train(int k) const;     // kfold: training rows that fold k does not hold out
  std::vector<std::uint32_t> fold_held_out(int k) const;
};

/// Splits rows with these labels. Rows of one group (find_duplicates().group: a smallest-row number per row) stay in
/// one part and one fold. `given`: empty, or per row kTest / kValidation for rows of files that the user gave (they
/// stay), kTrain for rows to be split. Each class gives round(rows * fraction) rows to a part, at least 1 where it has
/// 3 rows or more, and keeps at least 2 (or all) for training; groups may move that by their size. A class that is one
/// single row (or one group) is training only. Deterministic in its arguments. Errors: fractions or folds out of range,
/// sum of fractions >= 1, fewer than two classes in training.
Result<SplitPlan> make_split(std::span<const std::int32_t> labels, std::span<const std::uint32_t> groups,
                             const SplitOptions& options, std::span<const Part> given = {});

/// The same with the names and lines of `data` in the findings.
Result<SplitPlan> make_split(const Dataset& data, const DuplicateGroups& duplicates, const SplitOptions& options,
                             std::span<const Part> given = {});

}  // namespace tailor
