#include "prompt/demonstrations.h"

#include <algorithm>
#include <map>

namespace tailor {

std::vector<std::size_t> random_demonstrations(std::span<const std::int32_t> labels, std::size_t count, Rng& rng) {
  std::map<std::int32_t, std::vector<std::size_t>> by_class;
  for (std::size_t i = 0; i < labels.size(); ++i) by_class[labels[i]].push_back(i);
  std::vector<std::vector<std::size_t>> classes;
  for (auto& [label, rows] : by_class) {
    rng.shuffle(rows);
    classes.push_back(std::move(rows));
  }
  rng.shuffle(classes);
  std::vector<std::size_t> chosen;
  count = std::min(count, labels.size());
  for (std::size_t round = 0; chosen.size() < count; ++round) {
    for (const std::vector<std::size_t>& rows : classes) {
      if (round < rows.size() && chosen.size() < count) chosen.push_back(rows[round]);
    }
  }
  rng.shuffle(chosen);
  return chosen;
}

std::vector<std::size_t> retrieved_demonstrations(std::span<const std::size_t> neighbours, std::size_t count) {
  std::vector<std::size_t> chosen(neighbours.begin(),
                                  neighbours.begin() + static_cast<std::ptrdiff_t>(std::min(count, neighbours.size())));
  std::reverse(chosen.begin(), chosen.end());
  return chosen;
}

std::vector<std::int32_t> labels_of(std::span<const std::size_t> neighbours, std::span<const std::int32_t> labels) {
  std::vector<std::int32_t> found;
  for (const std::size_t n : neighbours) found.push_back(labels[n]);
  std::sort(found.begin(), found.end());
  found.erase(std::unique(found.begin(), found.end()), found.end());
  return found;
}

}  // namespace tailor
