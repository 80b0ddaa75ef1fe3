#include "store/token_days.h"

namespace tailor {

Status TokenDays::add(const std::vector<DayUsage>& usage) {
  if (usage.empty()) return {};
  TAILOR_TRY(Transaction transaction, context_.database.write());
  for (const DayUsage& entry : usage) {
    TAILOR_CHECK(transaction.run(
        "INSERT INTO token_days VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET tokens = tokens + excluded.tokens",
        {entry.key_id, entry.day, entry.tokens}));
  }
  return transaction.commit();
}

Result<std::vector<DayUsage>> TokenDays::of_day(std::int64_t day) const {
  TAILOR_TRY(Transaction transaction, context_.database.read());
  std::vector<DayUsage> usage;
  TAILOR_CHECK(transaction.each("SELECT key_id, day, tokens FROM token_days WHERE day = ?", {day},
                                [&](const Row& row) -> Status {
                                  usage.push_back({row.text(0), row.integer(1), row.integer(2)});
                                  return {};
                                }));
  return usage;
}

Status TokenDays::remove_before(std::int64_t day) {
  TAILOR_TRY(Transaction transaction, context_.database.write());
  TAILOR_CHECK(transaction.run("DELETE FROM token_days WHERE day < ?", {day}));
  return transaction.commit();
}

Status TokenDays::sync(QuotaLedger& ledger, UnixMillis now) {
  const std::vector<DayUsage> unsaved = ledger.take_unsaved();
  if (const Status added = add(unsaved); !added) {
    ledger.put_back(unsaved);
    return added;
  }
  TAILOR_TRY(const auto today, of_day(std::chrono::duration_cast<std::chrono::days>(now.time_since_epoch()).count()));
  ledger.set_saved(today);
  return {};
}

}  // namespace tailor
