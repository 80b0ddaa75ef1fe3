#pragma once
/// What a key may use: requests and tokens a minute, tokens a day, requests at a time.
///
/// A minute's limit is a bucket: it holds the limit, refills evenly (limit / 60 a second), a request takes what it
/// needs. Tokens are taken as estimated when a request begins and corrected when it ends; a bucket that went below zero
/// by that is waited for. A day is one of UTC.

#include <chrono>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <variant>
#include <vector>

#include "store/api_key.h"

namespace tailor {

using UnixMillis = std::chrono::sys_time<std::chrono::milliseconds>;

/// For the headers x-ratelimit-{limit,remaining,reset}-{requests,tokens}; nothing where a limit is not set.
struct QuotaState {
  struct Bucket {
    std::int64_t limit = 0, remaining = 0;
    std::chrono::milliseconds reset{0};  // until it is full
  };
  std::optional<Bucket> requests, tokens;
  std::optional<Bucket> tokens_today;  // reset: midnight
  std::int64_t in_flight = 0;
};

enum class QuotaLimit : std::uint8_t {
  kRequestsPerMinute,
  kTokensPerMinute,
  kTokensPerDay,
  kConcurrent,
  kTooLarge,  // needs more tokens than a full bucket or a whole day has: waiting does not help
  kTooManyKeys,
};
std::string_view to_string(QuotaLimit limit);  // "requests_per_minute", …

struct QuotaRefusal {
  QuotaLimit limit = QuotaLimit::kRequestsPerMinute;
  std::int64_t allowed = 0;                  // what the limit is
  std::chrono::milliseconds retry_after{0};  // 0 for kTooLarge
  QuotaState state;
};

struct DayUsage {
  std::string key_id;
  std::int64_t day = 0;  // since 1970-01-01
  std::int64_t tokens = 0;
};

class QuotaLedger;

/// A request that was let in. Ends its place among those at a time at the end of life; what was not settled then counts
/// as estimated (an aborted stream has cost something). The ledger must outlive it.
/// Threads: one at a time.
class QuotaGrant {
 public:
  QuotaGrant(QuotaGrant&& other) noexcept;
  QuotaGrant& operator=(QuotaGrant&&) = delete;
  ~QuotaGrant();
  /// What it took in the end; 0 also gives the request back to its minute (it was refused before any work). Once.
  void settle(std::int64_t tokens, UnixMillis now);
  /// It took no tokens, but the request counts (it was wrong, or asked for something that costs none). Once.
  void settle_unused(UnixMillis now);
  /// More tokens, as more becomes known of the request. A refusal takes nothing; what was let in stays.
  std::optional<QuotaRefusal> extend(std::int64_t tokens, UnixMillis now);
  const QuotaState& state() const { return state_; }  // after it was let in, extended or settled

 private:
  friend class QuotaLedger;
  QuotaGrant(QuotaLedger* ledger, std::string key_id, std::int64_t estimated, UnixMillis at)
      : ledger_(ledger), key_id_(std::move(key_id)), estimated_(estimated), at_(at) {}

  QuotaLedger* ledger_;
  std::string key_id_;
  std::int64_t estimated_;
  UnixMillis at_;
  QuotaState state_;
  bool settled_ = false;
  bool background_ = false;
};

/// Time comes from the caller and may go back a little (threads overtake each other): nothing refills twice then. Where
/// it goes back by more than a minute the clock was set, and refilling goes on from there.
/// Memory: one small record a key, at most `max_keys`; records that say nothing (full, idle) make room.
/// Threads: any; no call waits for anything but others of its kind.
class QuotaLedger {
 public:
  explicit QuotaLedger(std::size_t max_keys = 100'000) : max_keys_(max_keys) {}
  QuotaLedger(const QuotaLedger&) = delete;
  QuotaLedger& operator=(const QuotaLedger&) = delete;

  /// All limits or none: a refused request takes nothing. Changed limits hold from here on. `estimated_tokens` >= 0.
  std::variant<QuotaGrant, QuotaRefusal> admit(const std::string& key_id, const QuotaLimits& limits,
                                               std::int64_t estimated_tokens, UnixMillis now);
  /// For work in the background: takes neither a request of the minute nor a place among those at a time; tokens by
  /// QuotaGrant::extend(). Refused while less than half of a minute's tokens are left: that is for live requests.
  std::variant<QuotaGrant, QuotaRefusal> admit_background(const std::string& key_id, const QuotaLimits& limits,
                                                          UnixMillis now);
  QuotaState state(const std::string& key_id, const QuotaLimits& limits, UnixMillis now);

  /// Tokens of days that were settled since the last call; for TokenDays::add().
  std::vector<DayUsage> take_unsaved();
  /// What is on record for a day, everything that take_unsaved() gave included; keys then go on from there.
  void set_saved(const std::vector<DayUsage>& usage);
  /// Gives back what take_unsaved() gave, where it could not be saved.
  void put_back(const std::vector<DayUsage>& unsaved);
  std::size_t size() const;

 private:
  friend class QuotaGrant;
  struct Account {
    QuotaLimits limits;
    double requests = 0, tokens = 0;  // in the buckets
    UnixMillis refilled;
    std::int64_t day = 0, saved = 0, unsaved = 0, reserved = 0;  // tokens of the day: on record, settled since, begun
    std::int64_t in_flight = 0, background = 0;
  };
  /// Null: there is no room for one more.
  Account* account_of(const std::string& key_id, UnixMillis now);
  /// Refills, begins a new day, takes over changed limits.
  void advance(const std::string& key_id, Account& account, const QuotaLimits& limits, UnixMillis now);
  static QuotaState state_of(const Account& account, UnixMillis now);
  /// `at`: none: as late as the account was last looked at.
  QuotaState settle(const QuotaGrant& grant, std::int64_t tokens, std::optional<UnixMillis> at, bool give_request_back);
  std::optional<QuotaRefusal> extend(QuotaGrant& grant, std::int64_t tokens, UnixMillis now);
  void leave(const QuotaGrant& grant);
  bool make_room(UnixMillis now);

  std::size_t max_keys_;
  mutable std::mutex mutex_;
  std::unordered_map<std::string, Account> accounts_;
  UnixMillis room_made_;        // when the last search for room was
  std::vector<DayUsage> left_;  // unsaved tokens of days that are over
};

}  // namespace tailor
