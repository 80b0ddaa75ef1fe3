#pragma once
/// The door of a server with keys: who may come in, for what, how much of it.

#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "core/log.h"
#include "serve/api_server.h"
#include "serve/key_visit.h"
#include "store/store.h"

namespace tailor {

struct KeyDoorOptions {
  bool required = false;                        // closed also where no key exists yet
  std::chrono::milliseconds look_every{500};    // for keys that other processes made or revoked
  std::chrono::milliseconds save_every{5'000};  // what was used today, and when
  MillisClock clock;                            // empty: the system's
};

/// Keys come as "Authorization: Bearer KEY" or "X-Api-Key: KEY". A missing, unknown, expired or revoked one is the same
/// 401; a wrong scope is 403; a quota that is used up 429.
/// Open (but for what administrators do) while there was never a key, in the store or fixed (KeyStore::set_fixed());
/// closed from the first one on, also when that one is revoked or taken out of its file. A key revoked (or expired)
/// while its answer is on its way: the answer ends with an error within `look_every`. Threads: any.
class KeyDoor final : public Authenticator {
 public:
  KeyDoor(Store& store, Logger& log, KeyDoorOptions options = {});
  KeyDoor(const KeyDoor&) = delete;
  KeyDoor& operator=(const KeyDoor&) = delete;
  ~KeyDoor() override;  // saves what was used; no request may be under way

  ApiResult<Principal> check(const HttpHead& head, ApiScope scope) override;
  /// Without keys everybody; else keys of the scopes metrics and admin.
  bool may_hear_reasons(const HttpHead& head) override;
  /// Its tokens count as others do; see QuotaLedger::admit_background(). No key: it came in when nobody needed one.
  ApiResult<Principal> background(const std::string& key_id) override;
  bool closed() const;
  /// Reads the store's keys now and ends what runs under revoked ones; otherwise done by a thread of the door.
  void look();

 private:
  std::shared_ptr<const ApiKey> shown_key(const HttpHead& head, UnixMillis now) const;  ///< null: none that is valid
  void run();
  void save();
  void forget_days(UnixMillis now);
  Principal let_in(std::shared_ptr<const ApiKey> key, QuotaGrant grant);

  Store& store_;
  Logger& log_;
  KeyDoorOptions options_;
  QuotaLedger ledger_;
  std::atomic<bool> closed_{false};
  std::atomic<bool> unread_{false};  // already warned of
  std::mutex visits_mutex_;
  std::vector<std::weak_ptr<KeyVisit>> visits_;
  std::int64_t forgot_on_ = -1;  // day; by one thread at a time, as save() is
  std::size_t sweep_at_ = 64;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool stopping_ = false;
  std::thread thread_;  // last: ends first
};

}  // namespace tailor
