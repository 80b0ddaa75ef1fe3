#pragma once
/// For every training row the rows of other labels whose vectors lie nearest to its own: what a contrastive loss learns
/// most from (mining by the current model: Xiong et al., arXiv:2007.00808). They are mined when an epoch begins and
/// kept in a file beside the checkpoint, since a run that resumes inside the epoch no longer has the vectors.

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <span>
#include <vector>

#include "core/token_file.h"
#include "tune/trainable_model.h"

namespace tailor::tune {

class HardNegatives {
 public:
  static constexpr std::int64_t kMost = 8;  // kept of each row

  /// Borrows the file. `directory` (of the checkpoint) is there when the first epoch is mined.
  HardNegatives(const TokenFile& file, std::filesystem::path directory);

  RowSpan training_rows() const { return rows_; }
  std::int64_t epoch() const { return epoch_; }  // -1: none yet

  /// `vectors` [training_rows().size(), width], of length 1. Throws Exception{kIo} where the file cannot be written.
  void mine(const at::Tensor& vectors, std::int64_t epoch);
  /// What an earlier process mined. Throws where that is not there or of other rows.
  void read(std::int64_t epoch);

  /// Of a training row, nearest first; empty where all rows have its label.
  RowSpan of(std::int64_t row) const;

 private:
  std::filesystem::path file_of(std::int64_t epoch) const;

  const TokenFile& file_;
  const std::filesystem::path directory_;
  std::vector<std::int64_t> rows_;   // training rows of the file
  std::vector<std::int64_t> place_;  // of a row of the file among them; -1: not a training row
  std::vector<std::int64_t> near_;   // [rows_, kMost] rows of the file; -1: no more
  std::int64_t epoch_ = -1;
};

}  // namespace tailor::tune
