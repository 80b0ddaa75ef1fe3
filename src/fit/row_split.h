#pragma once
/// Data whose rows have no single label (a number, several labels, tags, a question): which files they came from, and
/// the part that each stands in.

#include <cstdint>
#include <filesystem>
#include <functional>
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

/// What such data have in common. Rows are numbered over all files.
struct SplitData {
  std::vector<TokenPart> parts;
  std::vector<std::string> files, file_hashes;
  std::vector<std::string> warnings;

  std::vector<std::uint32_t> rows_of(TokenPart part) const;  // ascending
};

/// What the files say of the rows' parts: the first `own_rows` are those of the data file, to be split.
struct GivenParts {
  std::vector<Part> parts;
  std::size_t own_rows = 0;
};

/// Reads the files that `options` name, in the order training, validation, test: `read` appends the rows of one and
/// says how many they are. Fills in files and hashes of `data`. Errors: those of `read`, too few rows to train on.
using ReadRows = std::function<Result<std::size_t>(const std::filesystem::path& file, Part part)>;
Result<GivenParts> read_files(const DataOptions& options, const ReadRows& read, SplitData& data);

/// The data file's own rows are split by the options' fractions and seed, stratified, equal and nearly equal texts in
/// one part; the others stand in the part that is given. Errors: no row for training or for the test.
Result<std::vector<TokenPart>> split_rows(const DataOptions& options, std::span<const std::string> texts,
                                          std::span<const std::int32_t> strata, const GivenParts& given);

}  // namespace tailor
