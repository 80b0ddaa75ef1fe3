#pragma once
/// The split as a file a person can open: JSONL, one line a row, without the texts.
///   {"row":0,"file":"train.csv","line":2,"part":"train","fold":3,"label":"card_arrival","sha256":"<of the text's
///   UTF-8>"}
/// "fold" is only there where the row has one.

#include <filesystem>

#include "core/result.h"
#include "data/dataset.h"
#include "data/split.h"

namespace tailor {

Status write_split_manifest(const std::filesystem::path& file, const Dataset& data, const SplitPlan& plan);

/// Reads it back for the same data. Errors name the manifest's line: other number of rows, a text (hash) or label that
/// is not the data's, an unknown part, folds that are not 0 to k-1. `seed` and findings are not in the file and stay
/// empty.
Result<SplitPlan> read_split_manifest(const std::filesystem::path& file, const Dataset& data);

}  // namespace tailor
