#pragma once
/// Parts for rows that have no single label: a number, several labels, tags.

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "core/result.h"
#include "core/token_file.h"
#include "data/split.h"
#include "fit/options.h"

namespace tailor {

/// The rarest label of each row, so that it comes into every part; rows without one are a stratum of their own.
/// `held` [rows, width]: above 0 where the label holds.
std::vector<std::int32_t> label_strata(std::span<const float> held, std::size_t width);

/// The first `own_rows` texts are split by the options' fractions and seed, stratified, equal and nearly equal texts in
/// one part; the others stand in the part that `given` says. Errors: no row for training or for the test.
Result<std::vector<TokenPart>> split_rows(const DataOptions& options, std::span<const std::string> texts,
                                          std::span<const std::int32_t> strata, std::size_t own_rows,
                                          std::vector<Part> given);

/// Rows of a part, ascending.
std::vector<std::uint32_t> rows_of(std::span<const TokenPart> parts, TokenPart part);

}  // namespace tailor
