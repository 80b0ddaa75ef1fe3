#pragma once
/// Training rows in a package, found again by how near they are to a text.

#include <span>
#include <vector>

#include "fit/classifier.h"
#include "learn/neighbours.h"
#include "prompt/template.h"

namespace tailor {

inline constexpr const char* kRowsFile = "rows.jsonl";  // as prompt/demonstration_file.h, in the order of the index

/// The rows of each query's neighbours; `rows`: those of the index.
std::vector<std::vector<NearRow>> near_rows(const TopK& neighbours, std::span<const Demonstration> rows);

}  // namespace tailor
