#include "fit/row_split.h"

#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <map>

#include "core/hash.h"
#include "data/near_duplicates.h"

namespace tailor {
namespace {

constexpr std::size_t kFewestRows = 10;

}  // namespace

std::vector<std::uint32_t> SplitData::rows_of(TokenPart part) const {
  std::vector<std::uint32_t> rows;
  for (std::size_t i = 0; i < parts.size(); ++i) {
    if (parts[i] == part) rows.push_back(static_cast<std::uint32_t>(i));
  }
  return rows;
}

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

Result<GivenParts> read_files(const DataOptions& options, const ReadRows& read, SplitData& data) {
  GivenParts given;
  const auto add = [&](const std::filesystem::path& file, Part part) -> Status {
    if (file.empty()) return {};
    TAILOR_TRY(const std::size_t rows, read(file, part));
    given.parts.insert(given.parts.end(), rows, part);
    data.files.push_back(file.string());
    TAILOR_TRY(std::string hash, sha256_file(file));
    data.file_hashes.push_back(std::move(hash));
    return {};
  };
  TAILOR_CHECK(add(options.data, Part::kTrain));
  given.own_rows = given.parts.size();
  if (given.own_rows < kFewestRows) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("{} has {} usable rows, at least {} are needed", options.data.string(), given.own_rows,
                             kFewestRows),
                 "add more rows"};
  }
  TAILOR_CHECK(add(options.validation_file, Part::kValidation));
  TAILOR_CHECK(add(options.test_file, Part::kTest));
  return given;
}

Result<std::vector<TokenPart>> split_rows(const DataOptions& options, std::span<const std::string> texts,
                                          std::span<const std::int32_t> strata, const GivenParts& given) {
  const std::size_t own_rows = given.own_rows;
  DuplicateGroups duplicates = find_duplicates(texts.first(own_rows));
  for (std::size_t i = own_rows; i < texts.size(); ++i) duplicates.group.push_back(static_cast<std::uint32_t>(i));
  std::vector<std::int32_t> by(strata.begin(), strata.end());
  const auto own_end = by.begin() + static_cast<std::ptrdiff_t>(own_rows);
  if (std::adjacent_find(by.begin(), own_end, std::not_equal_to<>()) == own_end)  // nothing to stratify by
    for (std::size_t r = 0; r < own_rows; ++r) by[r] = static_cast<std::int32_t>(r % 2);
  TAILOR_TRY(const SplitPlan plan, make_split(by, duplicates.group,
                                              {.validation_fraction = options.validation_fraction,
                                               .test_fraction = options.test_fraction,
                                               .seed = options.seed,
                                               .min_rows_per_class_for_holdout = 0},
                                              own_rows == texts.size() ? std::span<const Part>() : given.parts));
  std::vector<TokenPart> parts;
  for (const Part part : plan.part) {
    parts.push_back(part == Part::kTrain        ? TokenPart::kTrain
                    : part == Part::kValidation ? TokenPart::kValidation
                                                : TokenPart::kTest);
  }
  for (const TokenPart part : {TokenPart::kTrain, TokenPart::kTest}) {
    if (std::find(parts.begin(), parts.end(), part) != parts.end()) continue;
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("{}: too few rows to split off a {} part", options.data.string(),
                             part == TokenPart::kTrain ? "training" : "test"),
                 "add more rows, or give a test file with --test"};
  }
  return parts;
}

}  // namespace tailor
