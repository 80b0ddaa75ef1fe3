#include "fit/budget.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace tailor {

std::vector<Allotment> share_budget(const std::vector<BudgetItem>& remaining, double available, double reserved) {
  std::vector<Allotment> allotments;
  for (const auto& item : remaining) allotments.push_back({item.id, true, 0, ""});
  const auto spendable = [&] {
    double left = available - reserved;
    for (std::size_t i = 0; i < remaining.size(); ++i) {
      if (allotments[i].run) left -= remaining[i].minimum_seconds + remaining[i].score_seconds;
    }
    return left;
  };
  while (spendable() < 0) {
    std::size_t drop = remaining.size();
    for (std::size_t i = 0; i < remaining.size(); ++i) {
      if (!allotments[i].run) continue;
      if (drop == remaining.size() || remaining[i].priority > remaining[drop].priority ||
          (remaining[i].priority == remaining[drop].priority &&
           remaining[i].minimum_seconds > remaining[drop].minimum_seconds)) {
        drop = i;
      }
    }
    if (drop == remaining.size()) break;
    const BudgetItem& item = remaining[drop];
    allotments[drop].run = false;
    allotments[drop].reason = fmt::format(
        "does not fit the budget: needs at least {} (estimate for a full run {}, plus {} to score), {} are left for {} "
        "{}",
        human_seconds(item.minimum_seconds), human_seconds(item.wanted_seconds), human_seconds(item.score_seconds),
        human_seconds(std::max(0.0, available - reserved)), remaining.size(),
        remaining.size() == 1 ? "candidate" : "candidates");
  }
  // Share what is left over by weight; who has enough leaves the rest to the others.
  double left = std::max(0.0, spendable());
  std::vector<bool> open(remaining.size());
  for (std::size_t i = 0; i < remaining.size(); ++i) {
    if (!allotments[i].run) continue;
    allotments[i].seconds = remaining[i].minimum_seconds;
    open[i] = remaining[i].wanted_seconds > remaining[i].minimum_seconds;
  }
  while (left > 1e-9) {
    double weights = 0;
    for (std::size_t i = 0; i < remaining.size(); ++i) weights += open[i] ? remaining[i].weight : 0;
    if (weights <= 0) break;
    const double round = left;
    bool closed_one = false;
    for (std::size_t i = 0; i < remaining.size(); ++i) {
      if (!open[i]) continue;
      const double share = round * remaining[i].weight / weights;
      const double need = remaining[i].wanted_seconds - allotments[i].seconds;
      if (need <= share) {
        allotments[i].seconds += need;
        left -= need;
        open[i] = false;
        closed_one = true;
      }
    }
    if (closed_one) continue;
    for (std::size_t i = 0; i < remaining.size(); ++i) {
      if (open[i]) allotments[i].seconds += round * remaining[i].weight / weights;
    }
    break;
  }
  return allotments;
}

std::string human_seconds(double seconds) {
  if (seconds < 9.95) return fmt::format("{:.1f} s", seconds);
  const long whole = std::lround(seconds);
  if (whole < 60) return fmt::format("{} s", whole);
  if (whole < 3600)
    return whole % 60 == 0 ? fmt::format("{} min", whole / 60) : fmt::format("{} min {:02} s", whole / 60, whole % 60);
  return fmt::format("{} h {:02} min", whole / 3600, whole % 3600 / 60);
}

std::string human_bytes(double bytes) {
  static constexpr const char* kUnits[] = {"B", "kB", "MB", "GB", "TB"};
  int unit = 0;
  while (bytes >= 999.5 && unit < 4) {
    bytes /= 1000;
    ++unit;
  }
  return unit > 0 && bytes < 9.95 ? fmt::format("{:.1f} {}", bytes, kUnits[unit])
                                  : fmt::format("{:.0f} {}", bytes, kUnits[unit]);
}

}  // namespace tailor
