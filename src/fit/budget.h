#pragma once
/// Who gets how much of the time budget. Pure: the same numbers give the same decision, so a run can be replayed.
///
/// The budget covers search, training and validation; scoring the test part and refitting the winner are reserved
/// first. Rule: (1) while the minimum needs of the remaining candidates do not fit, the one of lowest priority is left
/// out, with its estimate as the reason; (2) each candidate that stays gets its minimum, and what is left over is
/// shared by weight, nobody getting more than it asked for. Time that a candidate does not use goes back and is shared
/// again, since the rule is applied anew before each candidate.

#include <cstddef>
#include <string>
#include <vector>

#include "core/json.h"

namespace tailor {

struct BudgetItem {
  std::string id;
  double wanted_seconds = 0;   // full search and training
  double minimum_seconds = 0;  // below this it makes no sense
  double score_seconds = 0;    // reserved for its test scoring
  double weight = 1;           // of the share in what is left over
  int priority = 0;            // larger: left out first
};

struct Allotment {
  std::string id;
  bool run = false;
  double seconds = 0;
  std::string reason;  // why it is left out
};

/// `available`: seconds left of the budget. `reserved`: for scoring candidates that are already fitted and for the
/// refit.
std::vector<Allotment> share_budget(const std::vector<BudgetItem>& remaining, double available, double reserved);

/// "1 h 20 min", "3 min 05 s", "12 s", "0.4 s".
std::string human_seconds(double seconds);
/// "1.2 GB", "87 MB", "12 kB".
std::string human_bytes(double bytes);

}  // namespace tailor
