#pragma once
/// Token files (core/token_file.h) of more rows than memory should hold.

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "core/result.h"
#include "core/spool_file.h"
#include "core/token_file.h"

namespace tailor {

/// Makes a row of the tokens that were appended to `block.tokens` since the last one, where rows have no masks.
void end_row(TokenFile& block, std::int32_t label, TokenPart part, std::int64_t row_id);
/// Forgets the rows; labels' answers, sizes and the memory stay.
void clear_rows(TokenFile& block);

/// Writes a token file block by block: its memory does not grow with the rows. The bytes are those of
/// write_token_file().
class TokenFileWriter {
 public:
  explicit TokenFileWriter(std::filesystem::path file) : file_(std::move(file)) {}
  /// Adds the rows of a block, which is checked as a file of its own. Blocks agree on what rows have (masks, types, …),
  /// on sizes and on the labels' answers.
  Status append(const TokenFile& block);
  /// Puts the file in its place (atomic); an error where no block was appended.
  Status finish();
  std::int64_t rows() const { return rows_; }

 private:
  struct Column {
    std::string name, type;
    std::vector<std::int64_t> shape;
    SpoolFile bytes;
  };
  std::filesystem::path file_;
  std::vector<Column> columns_;  // in the file's order
  std::map<std::string, std::string> metadata_;
  std::int64_t rows_ = 0, tokens_ = 0;
};

}  // namespace tailor
