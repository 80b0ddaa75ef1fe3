#include "infer/cache_budget.h"

#include <fmt/format.h>

#include <algorithm>

namespace tailor {

std::vector<std::uint64_t> shared_fairly(std::uint64_t bytes, const std::vector<CacheNeeds>& needs) {
  const auto at_level = [&](std::uint64_t level) {
    std::vector<std::uint64_t> out;
    for (const CacheNeeds& n : needs) out.push_back(std::clamp(level, n.least, std::max(n.least, n.most)));
    return out;
  };
  const auto fits = [&](std::uint64_t level) {
    std::uint64_t left = bytes;
    for (const std::uint64_t part : at_level(level)) {
      if (part > left) return false;
      left -= part;
    }
    return true;
  };
  std::uint64_t low = 0, high = bytes;  // the highest level that fits is in [low, high]
  while (low < high) {
    const std::uint64_t middle = low + (high - low) / 2 + (high - low) % 2;
    if (fits(middle))
      low = middle;
    else
      high = middle - 1;
  }
  return at_level(low);
}

Result<std::unique_ptr<CacheBudget::Part>> CacheBudget::join(CacheUser& user, const CacheNeeds& needs,
                                                             const std::string& name, std::uint64_t room) {
  const std::lock_guard lock(mutex_);
  std::uint64_t others = 0;
  for (const Member& member : members_) others += member.needs.least;
  if (others + needs.least > bytes_)
    return Error{
        ErrorCode::kOutOfMemory,
        fmt::format("{}: {} bytes are too few for keys and values: {} other model(s) need {} of them, and this "
                    "one {}",
                    name, bytes_, members_.size(), others, needs.least),
        fmt::format("--cache-bytes {} would do", others + needs.least)};
  const std::uint64_t held = held_by_all();
  shared_ = room < bytes_ - std::min(bytes_, held) ? held + room : bytes_;
  members_.push_back({&user, needs});
  share();
  return std::make_unique<Part>(shared_from_this(), &user);
}

void CacheBudget::leave(const CacheUser* user) {
  const std::lock_guard lock(mutex_);
  std::erase_if(members_, [&](const Member& member) { return member.user == user; });
  share();
}

std::uint64_t CacheBudget::held() const {
  const std::lock_guard lock(mutex_);
  return held_by_all();
}

std::uint64_t CacheBudget::held_by_all() const {
  std::uint64_t out = 0;
  for (const Member& member : members_) out += member.user->held_cache();
  return out;
}

void CacheBudget::share() {
  std::vector<CacheNeeds> needs;
  for (const Member& member : members_) needs.push_back(member.needs);
  const std::vector<std::uint64_t> parts = shared_fairly(shared_, needs);
  for (std::size_t i = 0; i < members_.size(); ++i) members_[i].user->limit_cache(parts[i]);
}

}  // namespace tailor
