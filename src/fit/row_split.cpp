#include "fit/row_split.h"

#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <map>

#include "data/near_duplicates.h"

namespace tailor {

std::vector<std::int32_t> label_strata(std::span<const float> held, std::size_t width) {
  const std::size_t rows = held.size() / width;
  std::vector<std::size_t> counts(width, 0);
  for (std::size_t i = 0; i < held.size(); ++i) counts[i % width] += held[i] > 0 ? 1 : 0;
  std::vector<std::size_t> stratum(rows, width);
  for (std::size_t r = 0; r < rows; ++r) {
    for (std::size_t l = 0; l < width; ++l) {
      if (held[r * width + l] > 0 && (stratum[r] == width || counts[l] < counts[stratum[r]])) stratum[r] = l;
    }
  }
  std::map<std::size_t, std::int32_t> numbers;
  std::vector<std::int32_t> out(rows);
  for (std::size_t r = 0; r < rows; ++r)
    out[r] = numbers.emplace(stratum[r], static_cast<std::int32_t>(numbers.size())).first->second;
  return out;
}

Result<std::vector<TokenPart>> split_rows(const DataOptions& options, std::span<const std::string> texts,
                                          std::span<const std::int32_t> strata, std::size_t own_rows,
                                          std::vector<Part> given) {
  DuplicateGroups duplicates = find_duplicates(texts.first(own_rows));
  for (std::size_t i = own_rows; i < texts.size(); ++i) duplicates.group.push_back(static_cast<std::uint32_t>(i));
  if (own_rows == texts.size()) given.clear();
  std::vector<std::int32_t> by(strata.begin(), strata.end());
  const auto own_end = by.begin() + static_cast<std::ptrdiff_t>(own_rows);
  if (std::adjacent_find(by.begin(), own_end, std::not_equal_to<>()) == own_end)  // nothing to stratify by
    for (std::size_t r = 0; r < own_rows; ++r) by[r] = static_cast<std::int32_t>(r % 2);
  TAILOR_TRY(const SplitPlan plan, make_split(by, duplicates.group,
                                              {.validation_fraction = options.validation_fraction,
                                               .test_fraction = options.test_fraction,
                                               .seed = options.seed,
                                               .min_rows_per_class_for_holdout = 0},
                                              given));
  std::vector<TokenPart> parts;
  for (const Part part : plan.part) {
    parts.push_back(part == Part::kTrain        ? TokenPart::kTrain
                    : part == Part::kValidation ? TokenPart::kValidation
                                                : TokenPart::kTest);
  }
  for (const TokenPart part : {TokenPart::kTrain, TokenPart::kTest}) {
    if (!rows_of(parts, part).empty()) continue;
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("{}: too few rows to split off a {} part", options.data.string(),
                             part == TokenPart::kTrain ? "training" : "test"),
                 "add more rows, or give a test file with --test"};
  }
  return parts;
}

std::vector<std::uint32_t> rows_of(std::span<const TokenPart> parts, TokenPart part) {
  std::vector<std::uint32_t> rows;
  for (std::size_t i = 0; i < parts.size(); ++i) {
    if (parts[i] == part) rows.push_back(static_cast<std::uint32_t>(i));
  }
  return rows;
}

}  // namespace tailor
