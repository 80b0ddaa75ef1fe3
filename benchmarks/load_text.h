#pragma once
/// What the programs that put load on a server have in common: prompts and percentiles.

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <string>
#include <vector>

#include "core/rng.h"

namespace tailor::bench {

/// Words that every tokenizer knows as one token each, or nearly.
inline std::string words(std::uint64_t seed, int n) {
  static const char* const kWords[] = {
      "time",  "year",   "people", "way",     "day",     "man",     "thing",    "woman",    "life",   "child",
      "world", "school", "state",  "family",  "student", "group",   "country",  "problem",  "hand",   "part",
      "place", "case",   "week",   "company", "system",  "program", "question", "work",     "number", "night",
      "point", "home",   "water",  "room",    "mother",  "area",    "money",    "story",    "fact",   "month",
      "lot",   "right",  "study",  "book",    "eye",     "job",     "word",     "business", "issue",  "side",
      "kind",  "head",   "house",  "service", "friend"};
  Rng rng(seed);
  std::string out;
  for (int i = 0; i < n; ++i) out += std::string(i == 0 ? "" : " ") + kWords[rng.below(std::size(kWords))];
  return out;
}

/// The value below which `share` of them lie; 0 of none.
inline double percentile(std::vector<double>& values, double share) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  return values[std::min(values.size() - 1, static_cast<std::size_t>(share * static_cast<double>(values.size())))];
}

}  // namespace tailor::bench
