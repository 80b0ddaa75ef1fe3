#include "store/quota.h"

#include <algorithm>
#include <cmath>
#include <tuple>

namespace tailor {
namespace {

using std::chrono::milliseconds;

constexpr double kMinute = 60'000;  // milliseconds
constexpr std::int64_t kDay = 86'400'000;
constexpr double kRounding = 1e-6;  // of a request or token: what refilling in small steps may lose
constexpr std::int64_t kMostTokens = std::int64_t{1} << 40;  // of a request; sums of them do not overflow
constexpr milliseconds kClockWasSet = std::chrono::minutes(1);

std::int64_t day_of(UnixMillis now) {
  const std::int64_t ms = now.time_since_epoch().count();
  return ms / kDay - (ms % kDay < 0 ? 1 : 0);
}

milliseconds until_midnight(UnixMillis now) {
  return milliseconds((day_of(now) + 1) * kDay) - now.time_since_epoch();
}

double refilled(double level, std::int64_t limit, milliseconds elapsed) {
  const auto full = static_cast<double>(limit);
  return std::min(full, level + full / kMinute * static_cast<double>(elapsed.count()));
}

/// A raised limit gives its difference at once; a lowered one takes what is too much.
double with_limit(double level, std::int64_t before, std::int64_t limit) {
  if (before == 0) return static_cast<double>(limit);
  return std::min(static_cast<double>(limit), level + static_cast<double>(std::max<std::int64_t>(limit - before, 0)));
}

milliseconds until(double level, double wanted, std::int64_t limit) {
  const double missing = wanted - level;
  if (missing <= kRounding) return milliseconds(0);
  return milliseconds(static_cast<std::int64_t>(std::ceil(missing * kMinute / static_cast<double>(limit))));
}

QuotaState::Bucket bucket(double level, std::int64_t limit) {
  return {limit, static_cast<std::int64_t>(std::max(0.0, std::floor(level + kRounding))),
          until(level, static_cast<double>(limit), limit)};
}

/// More than a full bucket or a whole day has.
std::optional<QuotaRefusal> too_large(const QuotaLimits& limits, std::int64_t needed) {
  const bool minute = limits.tokens_per_minute > 0 && needed > limits.tokens_per_minute;
  const bool day = limits.tokens_per_day > 0 && needed > limits.tokens_per_day;
  if (!minute && !day) return std::nullopt;
  return QuotaRefusal{
      QuotaLimit::kTooLarge, minute ? limits.tokens_per_minute : limits.tokens_per_day, milliseconds(0), {}};
}

}  // namespace

std::string_view to_string(QuotaLimit limit) {
  switch (limit) {
    case QuotaLimit::kRequestsPerMinute:
      return "requests_per_minute";
    case QuotaLimit::kTokensPerMinute:
      return "tokens_per_minute";
    case QuotaLimit::kTokensPerDay:
      return "tokens_per_day";
    case QuotaLimit::kConcurrent:
      return "max_concurrent";
    case QuotaLimit::kTooLarge:
      return "tokens_per_request";
    case QuotaLimit::kTooManyKeys:
      return "keys";
  }
  return "";
}

QuotaGrant::QuotaGrant(QuotaGrant&& other) noexcept
    : ledger_(std::exchange(other.ledger_, nullptr)),
      key_id_(std::move(other.key_id_)),
      estimated_(other.estimated_),
      at_(other.at_),
      state_(std::move(other.state_)),
      settled_(other.settled_),
      background_(other.background_) {}

QuotaGrant::~QuotaGrant() {
  if (ledger_ == nullptr) return;
  if (!settled_) std::ignore = ledger_->settle(*this, estimated_, std::nullopt, false);
  ledger_->leave(*this);
}

void QuotaGrant::settle(std::int64_t tokens, UnixMillis now) {
  if (ledger_ == nullptr || std::exchange(settled_, true)) return;
  state_ = ledger_->settle(*this, std::clamp<std::int64_t>(tokens, 0, kMostTokens), now, tokens == 0);
}

void QuotaGrant::settle_unused(UnixMillis now) {
  if (ledger_ == nullptr || std::exchange(settled_, true)) return;
  state_ = ledger_->settle(*this, 0, now, false);
}

std::optional<QuotaRefusal> QuotaGrant::extend(std::int64_t tokens, UnixMillis now) {
  if (ledger_ == nullptr || settled_) return std::nullopt;
  return ledger_->extend(*this, std::clamp<std::int64_t>(tokens, 0, kMostTokens), now);
}

void QuotaLedger::advance(const std::string& key_id, Account& account, const QuotaLimits& limits, UnixMillis now) {
  if (now + kClockWasSet < account.refilled) account.refilled = now;
  const milliseconds elapsed = std::max(milliseconds(0), now - account.refilled);
  account.refilled = std::max(account.refilled, now);
  account.requests = refilled(account.requests, account.limits.requests_per_minute, elapsed);
  account.tokens = refilled(account.tokens, account.limits.tokens_per_minute, elapsed);
  if (account.limits != limits) {
    account.requests = with_limit(account.requests, account.limits.requests_per_minute, limits.requests_per_minute);
    account.tokens = with_limit(account.tokens, account.limits.tokens_per_minute, limits.tokens_per_minute);
    account.limits = limits;
  }
  const std::int64_t day = day_of(now);
  if (day > account.day || day < account.day - 1) {
    if (account.unsaved > 0) left_.push_back({key_id, account.day, account.unsaved});
    account.day = day;
    account.saved = account.unsaved = account.reserved = 0;
  }
}

QuotaState QuotaLedger::state_of(const Account& account, UnixMillis now) {
  QuotaState state;
  const QuotaLimits& limits = account.limits;
  if (limits.requests_per_minute > 0) state.requests = bucket(account.requests, limits.requests_per_minute);
  if (limits.tokens_per_minute > 0) state.tokens = bucket(account.tokens, limits.tokens_per_minute);
  if (limits.tokens_per_day > 0) {
    const std::int64_t used = account.saved + account.unsaved + account.reserved;
    state.tokens_today = {limits.tokens_per_day, std::max<std::int64_t>(0, limits.tokens_per_day - used),
                          until_midnight(now)};
  }
  state.in_flight = account.in_flight;
  return state;
}

QuotaLedger::Account* QuotaLedger::account_of(const std::string& key_id, UnixMillis now) {
  if (const auto found = accounts_.find(key_id); found != accounts_.end()) return &found->second;
  if (accounts_.size() >= max_keys_ && !make_room(now)) return nullptr;
  return &accounts_.emplace(key_id, Account{.refilled = now, .day = day_of(now)}).first->second;
}

std::variant<QuotaGrant, QuotaRefusal> QuotaLedger::admit_background(const std::string& key_id,
                                                                     const QuotaLimits& limits, UnixMillis now) {
  const std::lock_guard lock(mutex_);
  Account* const account = account_of(key_id, now);
  if (account == nullptr)
    return QuotaRefusal{QuotaLimit::kTooManyKeys, static_cast<std::int64_t>(max_keys_), kClockWasSet, {}};
  advance(key_id, *account, limits, now);
  const double half = static_cast<double>(limits.tokens_per_minute) / 2;
  if (limits.tokens_per_minute > 0 && account->tokens + kRounding < half)
    return QuotaRefusal{QuotaLimit::kTokensPerMinute, limits.tokens_per_minute,
                        until(account->tokens, half, limits.tokens_per_minute), state_of(*account, now)};
  ++account->background;
  QuotaGrant grant(this, key_id, 0, now);
  grant.background_ = true;
  grant.state_ = state_of(*account, now);
  return grant;
}

std::variant<QuotaGrant, QuotaRefusal> QuotaLedger::admit(const std::string& key_id, const QuotaLimits& limits,
                                                          std::int64_t estimated_tokens, UnixMillis now) {
  const std::int64_t needed = std::clamp<std::int64_t>(estimated_tokens, 0, kMostTokens);
  const std::lock_guard lock(mutex_);
  Account* const known = account_of(key_id, now);
  if (known == nullptr)
    return QuotaRefusal{QuotaLimit::kTooManyKeys, static_cast<std::int64_t>(max_keys_), kClockWasSet, {}};
  Account& account = *known;
  advance(key_id, account, limits, now);

  std::optional<QuotaRefusal> refusal;  // the one that has to be waited for longest
  const auto refuse = [&](QuotaLimit limit, std::int64_t allowed, milliseconds retry_after) {
    if (!refusal || retry_after > refusal->retry_after) refusal = QuotaRefusal{limit, allowed, retry_after, {}};
  };
  const auto wanted = static_cast<double>(needed);
  const std::int64_t used = account.saved + account.unsaved + account.reserved;
  if (auto large = too_large(limits, needed)) {
    large->state = state_of(account, now);
    return *std::move(large);
  }
  if (limits.max_concurrent > 0 && account.in_flight >= limits.max_concurrent)
    refuse(QuotaLimit::kConcurrent, limits.max_concurrent, std::chrono::seconds(1));
  if (limits.requests_per_minute > 0 && account.requests + kRounding < 1)
    refuse(QuotaLimit::kRequestsPerMinute, limits.requests_per_minute,
           until(account.requests, 1, limits.requests_per_minute));
  if (limits.tokens_per_minute > 0 && account.tokens + kRounding < wanted)
    refuse(QuotaLimit::kTokensPerMinute, limits.tokens_per_minute,
           until(account.tokens, wanted, limits.tokens_per_minute));
  if (limits.tokens_per_day > 0 && used + needed > limits.tokens_per_day)
    refuse(QuotaLimit::kTokensPerDay, limits.tokens_per_day, until_midnight(now));
  if (refusal) {
    refusal->state = state_of(account, now);
    return *std::move(refusal);
  }
  if (limits.requests_per_minute > 0) account.requests -= 1;
  if (limits.tokens_per_minute > 0) account.tokens -= wanted;
  account.reserved += needed;
  ++account.in_flight;
  QuotaGrant grant(this, key_id, needed, now);
  grant.state_ = state_of(account, now);
  return grant;
}

std::optional<QuotaRefusal> QuotaLedger::extend(QuotaGrant& grant, std::int64_t tokens, UnixMillis now) {
  const std::lock_guard lock(mutex_);
  Account& account = accounts_.at(grant.key_id_);
  advance(grant.key_id_, account, account.limits, now);
  const QuotaLimits& limits = account.limits;
  std::optional<QuotaRefusal> refusal = too_large(limits, grant.estimated_ + tokens);
  const auto wanted = static_cast<double>(tokens);
  const std::int64_t used = account.saved + account.unsaved + account.reserved;
  const auto refuse = [&](QuotaLimit limit, std::int64_t allowed, milliseconds retry_after) {
    if (!refusal || (refusal->limit != QuotaLimit::kTooLarge && retry_after > refusal->retry_after))
      refusal = QuotaRefusal{limit, allowed, retry_after, {}};
  };
  if (limits.tokens_per_minute > 0 && account.tokens + kRounding < wanted)
    refuse(QuotaLimit::kTokensPerMinute, limits.tokens_per_minute,
           until(account.tokens, wanted, limits.tokens_per_minute));
  if (limits.tokens_per_day > 0 && used + tokens > limits.tokens_per_day)
    refuse(QuotaLimit::kTokensPerDay, limits.tokens_per_day, until_midnight(now));
  if (refusal) {
    refusal->state = state_of(account, now);
    return refusal;
  }
  if (limits.tokens_per_minute > 0) account.tokens -= wanted;
  if (day_of(grant.at_) == account.day) account.reserved += tokens;
  grant.estimated_ += tokens;
  grant.state_ = state_of(account, now);
  return std::nullopt;
}

QuotaState QuotaLedger::state(const std::string& key_id, const QuotaLimits& limits, UnixMillis now) {
  const std::lock_guard lock(mutex_);
  const auto found = accounts_.find(key_id);
  if (found != accounts_.end()) {
    advance(key_id, found->second, limits, now);
    return state_of(found->second, now);
  }
  Account fresh{.refilled = now, .day = day_of(now)};
  advance(key_id, fresh, limits, now);
  return state_of(fresh, now);
}

QuotaState QuotaLedger::settle(const QuotaGrant& grant, std::int64_t tokens, std::optional<UnixMillis> at,
                               bool give_request_back) {
  const std::lock_guard lock(mutex_);
  Account& account = accounts_.at(grant.key_id_);  // a record with requests in flight is never dropped
  const UnixMillis now = at.value_or(account.refilled);
  advance(grant.key_id_, account, account.limits, now);
  const std::int64_t estimated = grant.estimated_;
  if (day_of(grant.at_) == account.day) account.reserved = std::max<std::int64_t>(0, account.reserved - estimated);
  account.unsaved += tokens;
  if (account.limits.tokens_per_minute > 0) {
    account.tokens = std::min(static_cast<double>(account.limits.tokens_per_minute),
                              account.tokens + static_cast<double>(estimated - tokens));
  }
  if (give_request_back && !grant.background_ && account.limits.requests_per_minute > 0)
    account.requests = std::min(static_cast<double>(account.limits.requests_per_minute), account.requests + 1);
  return state_of(account, now);
}

void QuotaLedger::leave(const QuotaGrant& grant) {
  const std::lock_guard lock(mutex_);
  Account& account = accounts_.at(grant.key_id_);
  --(grant.background_ ? account.background : account.in_flight);
}

bool QuotaLedger::make_room(UnixMillis now) {
  if (now == room_made_) return false;  // a search looks at all records: once a millisecond is enough
  room_made_ = now;
  for (auto it = accounts_.begin(); it != accounts_.end();) {
    Account& account = it->second;
    advance(it->first, account, account.limits, now);
    const QuotaLimits& limits = account.limits;
    const bool says_nothing = account.in_flight + account.background == 0 && account.saved + account.unsaved == 0 &&
                              account.requests + kRounding >= static_cast<double>(limits.requests_per_minute) &&
                              account.tokens + kRounding >= static_cast<double>(limits.tokens_per_minute);
    it = says_nothing ? accounts_.erase(it) : std::next(it);
  }
  return accounts_.size() < max_keys_;
}

std::vector<DayUsage> QuotaLedger::take_unsaved() {
  const std::lock_guard lock(mutex_);
  std::vector<DayUsage> usage = std::move(left_);
  left_.clear();
  for (auto& [key_id, account] : accounts_) {
    if (account.unsaved == 0) continue;
    usage.push_back({key_id, account.day, account.unsaved});
    account.saved += std::exchange(account.unsaved, 0);
  }
  return usage;
}

void QuotaLedger::set_saved(const std::vector<DayUsage>& usage) {
  const std::lock_guard lock(mutex_);
  for (const DayUsage& entry : usage) {
    auto found = accounts_.find(entry.key_id);
    if (found == accounts_.end()) {
      if (accounts_.size() >= max_keys_) continue;
      found =
          accounts_
              .emplace(entry.key_id, Account{.refilled = UnixMillis(milliseconds(entry.day * kDay)), .day = entry.day})
              .first;
    }
    if (found->second.day == entry.day) found->second.saved = entry.tokens;
  }
}

void QuotaLedger::put_back(const std::vector<DayUsage>& unsaved) {
  const std::lock_guard lock(mutex_);
  for (const DayUsage& entry : unsaved) {
    const auto found = accounts_.find(entry.key_id);
    if (found == accounts_.end() || found->second.day != entry.day) {
      left_.push_back(entry);
      continue;
    }
    found->second.saved -= entry.tokens;
    found->second.unsaved += entry.tokens;
  }
}

std::size_t QuotaLedger::size() const {
  const std::lock_guard lock(mutex_);
  return accounts_.size();
}

}  // namespace tailor
