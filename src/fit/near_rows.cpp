#include "fit/near_rows.h"

namespace tailor {

std::vector<std::vector<NearRow>> near_rows(const TopK& neighbours, std::span<const Demonstration> rows) {
  std::vector<std::vector<NearRow>> out(neighbours.queries);
  for (std::size_t q = 0; q < neighbours.queries; ++q) {
    for (std::size_t i = q * neighbours.k; i < (q + 1) * neighbours.k; ++i) {
      const Demonstration& row = rows[neighbours.rows[i]];
      out[q].push_back({row.text, row.label, neighbours.similarities[i]});
    }
  }
  return out;
}

}  // namespace tailor
