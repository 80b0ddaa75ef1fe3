#pragma once
/// The memory for keys and values that the engines of one process share.
///
/// Each may take as much as any other, but never less than it needs nor more than it can use: what one cannot use is
/// the others'. So every part changes when an engine comes or goes; an engine that holds more than its part gives the
/// rest back when the answers that stand in it have ended.

#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "core/result.h"

namespace tailor {

/// An engine, as the budget sees it. Called under the budget's lock: it must not call the budget.
class CacheUser {
 public:
  virtual ~CacheUser() = default;
  virtual void limit_cache(std::uint64_t bytes) = 0;  ///< from now on
  virtual std::uint64_t held_cache() const = 0;       ///< bytes that it has taken
};

struct CacheNeeds {
  std::uint64_t least = 0;  // bytes; below it the engine is of no use
  std::uint64_t most = 0;   // more it cannot use
};

/// Threads: all calls from any.
class CacheBudget : public std::enable_shared_from_this<CacheBudget> {
 public:
  explicit CacheBudget(std::uint64_t bytes) : bytes_(bytes) {}

  /// A place at the budget, to its end.
  class Part {
   public:
    Part(std::shared_ptr<CacheBudget> budget, const CacheUser* user) : budget_(std::move(budget)), user_(user) {}
    Part(const Part&) = delete;
    Part& operator=(const Part&) = delete;
    ~Part() { budget_->leave(user_); }

   private:
    std::shared_ptr<CacheBudget> budget_;
    const CacheUser* user_;
  };

  /// The user outlives its part and hears of its limit before this returns. `room`: bytes that the machine has for
  /// caches beside what they hold; where that is less than the budget, no more is shared until the next one joins.
  /// kOutOfMemory, which says what would do: the budget is less than what all need; nothing has changed then. `name` is
  /// the model's, for the message.
  Result<std::unique_ptr<Part>> join(CacheUser& user, const CacheNeeds& needs, const std::string& name,
                                     std::uint64_t room = UINT64_MAX);

  std::uint64_t bytes() const { return bytes_; }
  std::uint64_t held() const;  ///< by all users together

 private:
  struct Member {
    CacheUser* user;
    CacheNeeds needs;
  };
  void leave(const CacheUser* user);
  void share();  // under mutex_
  std::uint64_t held_by_all() const;

  const std::uint64_t bytes_;
  mutable std::mutex mutex_;
  std::uint64_t shared_ = bytes_;  // of these
  std::vector<Member> members_;
};

/// How much each gets: as much as the others, within its needs, and all together no more than `bytes`. Where that is
/// less than the least of all together, each gets its least.
std::vector<std::uint64_t> shared_fairly(std::uint64_t bytes, const std::vector<CacheNeeds>& needs);

}  // namespace tailor
