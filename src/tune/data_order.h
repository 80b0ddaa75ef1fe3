#pragma once
/// Which rows make which step. The order of an epoch is a function of (seed, epoch) alone, so a resumed run needs only
/// the number of the step.

#include <cstdint>
#include <vector>

#include "core/token_file.h"
#include "tune/trainable_model.h"

namespace tailor::tune {

class DataOrder {
 public:
  /// `rows`: the rows to train on. Every epoch is a new permutation; its last batch may be short.
  DataOrder(std::vector<std::int64_t> rows, std::int64_t batch_size, std::uint64_t seed);
  std::int64_t steps_per_epoch() const;
  /// Rows of step 0, 1, …; valid until the next call.
  RowSpan batch(std::int64_t step);

 private:
  std::vector<std::int64_t> rows_, permutation_;
  std::int64_t batch_size_;
  std::uint64_t seed_;
  std::int64_t epoch_ = -1;
};

/// Rows of one part, in the file's order.
std::vector<std::int64_t> rows_of(const TokenFile& file, TokenPart part);

/// Cuts rows into consecutive micro-batches of at most `max_tokens` tokens; a longer row stands alone.
std::vector<RowSpan> micro_batches(const TokenFile& file, RowSpan rows, std::int64_t max_tokens);

}  // namespace tailor::tune
