#include "tune/data_order.h"

#include <algorithm>

#include "core/rng.h"
#include "tune/head.h"

namespace tailor::tune {

DataOrder::DataOrder(std::vector<std::int64_t> rows, std::int64_t batch_size, std::uint64_t seed)
    : rows_(std::move(rows)), batch_size_(batch_size), seed_(seed) {}

std::int64_t DataOrder::steps_per_epoch() const {
  return (static_cast<std::int64_t>(rows_.size()) + batch_size_ - 1) / batch_size_;
}

RowSpan DataOrder::batch(std::int64_t step) {
  const std::int64_t epoch = step / steps_per_epoch();
  if (epoch != epoch_) {
    permutation_ = rows_;
    Rng rng(seed_ ^ Rng::mix(static_cast<std::uint64_t>(epoch)), kOrderStream);
    rng.shuffle(permutation_);
    epoch_ = epoch;
  }
  const std::int64_t first = step % steps_per_epoch() * batch_size_;
  const std::int64_t count = std::min(batch_size_, static_cast<std::int64_t>(rows_.size()) - first);
  return RowSpan(permutation_).subspan(static_cast<std::size_t>(first), static_cast<std::size_t>(count));
}

std::vector<std::int64_t> rows_of(const TokenFile& file, TokenPart part) {
  std::vector<std::int64_t> rows;
  for (std::size_t i = 0; i < file.rows(); ++i) {
    if (file.parts[i] == part) rows.push_back(static_cast<std::int64_t>(i));
  }
  return rows;
}

std::vector<RowSpan> micro_batches(const TokenFile& file, RowSpan rows, std::int64_t max_tokens) {
  std::vector<RowSpan> out;
  std::size_t first = 0;
  std::int64_t tokens = 0;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const auto length = static_cast<std::int64_t>(file.row(static_cast<std::size_t>(rows[i])).size());
    if (i > first && tokens + length > max_tokens) {
      out.push_back(rows.subspan(first, i - first));
      first = i;
      tokens = 0;
    }
    tokens += length;
  }
  if (first < rows.size()) out.push_back(rows.subspan(first));
  return out;
}

}  // namespace tailor::tune
