#pragma once
/// What each key used each day, so that a restart does not give the day back.

#include <cstdint>
#include <vector>

#include "core/result.h"
#include "store/quota.h"
#include "store/store_context.h"

namespace tailor {

/// Threads: any.
class TokenDays {
 public:
  explicit TokenDays(StoreContext context) : context_(context) {}

  Status add(const std::vector<DayUsage>& usage);  // to what is on record
  Result<std::vector<DayUsage>> of_day(std::int64_t day) const;
  Status remove_before(std::int64_t day);  // for what nobody asks for any more: a row a key and day

  /// Saves what a ledger settled and gives it what all processes of this store used today. Call it when a server
  /// starts, every few seconds (a crash forgets what was used since) and at the end; one call at a time for a ledger.
  Status sync(QuotaLedger& ledger, UnixMillis now);

 private:
  StoreContext context_;
};

}  // namespace tailor
