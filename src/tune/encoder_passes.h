#pragma once
/// What the models on an encoder share: pooling, and passes over many rows.

#include <ATen/ops/index_select.h>

#include <algorithm>

#include "core/token_file.h"
#include "tune/encoder_functions.h"
#include "tune/objective.h"
#include "tune/portable.h"
#include "tune/settings.h"
#include "tune/trainable_model.h"

namespace tailor::tune {

inline at::Tensor pool(const at::Tensor& x, const PackedRows& rows, Pooling pooling) {
  return pooling == Pooling::kMean ? mean_pool(x, rows) : first_token_pool(x, rows);
}

/// What the head scores of these rows: tokens, or a pooled vector each.  x [T, d]; out [units, d].
inline at::Tensor units_of(const at::Tensor& x, const PackedRows& packed, RowSpan rows, const Objective& objective,
                           Pooling pooling) {
  const auto places = objective.scored_tokens(rows);
  if (!places) return pool(x, packed, pooling);
  return at::index_select(x, 0, portable::index_of(std::span<const std::int64_t>(*places), x.device()));
}

/// Calls body(first, count) for consecutive rows that hold about so many tokens together, at most; a longer row comes
/// alone.
template <typename Body>
void for_passes(const TokenFile& file, RowSpan rows, const Body& body) {
  constexpr std::int64_t kPassTokens = 4096;
  for (std::size_t first = 0; first < rows.size();) {
    std::size_t count = 0;
    std::int64_t tokens = 0;
    while (first + count < rows.size()) {
      const auto length = static_cast<std::int64_t>(file.row(static_cast<std::size_t>(rows[first + count])).size());
      if (count > 0 && tokens + length > kPassTokens) break;
      tokens += length;
      ++count;
    }
    body(first, count);
    first += count;
  }
}

}  // namespace tailor::tune
