#pragma once
/// Texts that stand in two parts: a score on such rows says little about new texts.

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <span>
#include <string_view>
#include <vector>

#include "data/dataset.h"
#include "data/near_duplicates.h"

namespace tailor {

struct Leaks {
  std::vector<NearPair> exact;  // first: row of the training side, second: row of the tested side (rows of the Dataset)
  std::vector<NearPair> near;   // for tested rows without an exact one; several pairs a row are possible
  std::size_t exact_rows = 0;   // tested rows concerned
  std::size_t near_rows = 0;
};

/// Compares the rows `tested` with the rows `training` of one data set. Exact: the same duplicate_key (case, width,
/// white space and typographic quotes aside). Near: near_duplicates.h.
Leaks find_leaks(const Dataset& data, std::span<const std::uint32_t> training, std::span<const std::uint32_t> tested,
                 const NearDuplicateOptions& options = {});

/// Warnings "exact_leaks" and "near_leaks" with counts and lines of the tested file; nothing where there are none.
/// The names are those of the parts, such as "training" and "test".
void add_leak_findings(const Dataset& data, const Leaks& leaks, std::size_t tested_rows, std::string_view training_name,
                       std::string_view tested_name, DataReport& report);

/// {"exact_rows", "near_rows", "exact": [{"training": {"row", "file", "line"}, "tested": {...}}], "near": [...
/// "similarity"]}
nlohmann::ordered_json to_json(const Leaks& leaks, const Dataset& data, std::size_t max_pairs = 1000);

}  // namespace tailor
