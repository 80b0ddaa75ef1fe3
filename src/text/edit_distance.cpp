#include "text/edit_distance.h"

#include <algorithm>
#include <vector>

#include "text/unicode.h"

namespace tailor {

std::size_t edit_distance(std::string_view a, std::string_view b, std::size_t limit) {
  if (a.size() > b.size()) std::swap(a, b);
  if (b.size() - a.size() > limit) return limit + 1;
  const std::size_t columns = a.size() + 1;
  std::vector<std::size_t> before(columns), previous(columns), row(columns);
  for (std::size_t j = 0; j < columns; ++j) previous[j] = j;
  for (std::size_t i = 1; i <= b.size(); ++i) {
    row[0] = i;
    std::size_t smallest = row[0];
    for (std::size_t j = 1; j < columns; ++j) {
      const std::size_t change = a[j - 1] == b[i - 1] ? 0 : 1;
      row[j] = std::min({previous[j] + 1, row[j - 1] + 1, previous[j - 1] + change});
      const bool swapped = i > 1 && j > 1 && a[j - 1] == b[i - 2] && a[j - 2] == b[i - 1];
      if (swapped) row[j] = std::min(row[j], before[j - 2] + 1);
      smallest = std::min(smallest, row[j]);
    }
    // A swap reaches back two rows, so one row above the limit is no proof; it is with the row before above it as well.
    if (smallest > limit && *std::min_element(previous.begin(), previous.end()) > limit) return limit + 1;
    std::swap(before, previous);
    std::swap(previous, row);
  }
  return std::min(previous.back(), limit + 1);
}

std::string nearest_name(std::string_view name, std::span<const std::string> candidates) {
  const std::string folded = fold(name);
  std::size_t best = std::max<std::size_t>(2, name.size() / 3) + 1;
  std::string nearest;
  for (const std::string& candidate : candidates) {
    const std::size_t distance = edit_distance(folded, fold(candidate), best - 1);
    if (distance < best) {
      best = distance;
      nearest = candidate;
      if (best == 0) break;
    }
  }
  return nearest;
}

}  // namespace tailor
