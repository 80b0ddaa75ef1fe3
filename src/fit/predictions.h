#pragma once
/// What one candidate answered on some rows, in memory and as a JSONL file.

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "core/matrix.h"
#include "core/result.h"
#include "eval/paired.h"

namespace tailor {

struct Predictions {
  std::vector<std::int64_t> rows;  // ids of rows in the data, ascending not required, no repeats
  std::vector<int> truth;          // index of the label; -1 where unknown
  std::vector<int> predicted;      // index of the label
  Matrix probabilities;            // [rows, labels]

  std::size_t size() const { return rows.size(); }
};

/// Predicted labels from probabilities.
Predictions make_predictions(const std::vector<std::uint32_t>& ids, std::vector<int> truth, Matrix probabilities);

/// One line a row: {"row":3,"label":"a","predicted":"b","p":[…]} with p in the order of label_names; atomic.
Status save_predictions(const std::filesystem::path& file, const Predictions& predictions,
                        const std::vector<std::string>& label_names);
Result<Predictions> load_predictions(const std::filesystem::path& file, const std::vector<std::string>& label_names);

/// The same as eval's paired tests take it; borrows from `predictions`.
Answers answers_of(const Predictions& predictions);

}  // namespace tailor
