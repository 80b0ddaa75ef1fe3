#include "infer/kept_prefixes.h"

#include <algorithm>

namespace tailor {

void KeptPrefixes::put(const std::string& space, std::vector<std::int32_t> tokens, SequenceBytes bytes) {
  if (tokens.empty() || bytes->size() > max_bytes_) return;
  const std::int64_t id = next_++;
  tree_.insert(space, tokens, id);
  if (tree_.continued(id)) {  // held already, alone or at the head of something longer
    tree_.remove(id);
    return;
  }
  for (const std::int64_t shorter : tree_.beginnings_of(id)) remove(shorter);
  bytes_ += bytes->size();
  entries_[id] = {space, tokens.size(), std::move(bytes), ++clock_};
  while (bytes_ > max_bytes_) {
    const auto oldest = std::min_element(entries_.begin(), entries_.end(),
                                         [](const auto& a, const auto& b) { return a.second.used < b.second.used; });
    remove(oldest->first);
  }
}

KeptPrefixes::Match KeptPrefixes::longest(const std::string& space, std::span<const std::int32_t> tokens) {
  const PrefixTree::Match match = tree_.longest(space, tokens);
  if (match.entry < 0) return {};
  Entry& entry = entries_.at(match.entry);
  entry.used = ++clock_;
  return {match.length, entry.tokens, entry.bytes};
}

void KeptPrefixes::drop_spaces(const std::function<bool(const std::string&)>& which) {
  std::vector<std::int64_t> gone;
  for (const auto& [id, entry] : entries_) {
    if (which(entry.space)) gone.push_back(id);
  }
  for (const std::int64_t id : gone) remove(id);
}

void KeptPrefixes::remove(std::int64_t id) {
  tree_.remove(id);
  bytes_ -= entries_.at(id).bytes->size();
  entries_.erase(id);
}

}  // namespace tailor
