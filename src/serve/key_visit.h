#pragma once
/// One request under a key: its place in the key's quotas from admission to the end of the answer.

#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "serve/api_result.h"
#include "store/api_key.h"
#include "store/quota.h"

namespace tailor {

using MillisClock = std::function<UnixMillis()>;
UnixMillis system_millis();

/// x-ratelimit-{limit,remaining,reset}-{requests,tokens}, where there are limits. Tokens: of a minute, else of a day.
void add_quota_headers(const QuotaState& state, HttpHeaders& headers);
/// 429 with Retry-After, where waiting helps.
ApiError quota_error(const QuotaRefusal& refusal);

/// What was not settled at the end of life counts as estimated, where work on it had begun (an aborted stream has cost
/// something), else as a request without tokens. Threads: any. The ledger must outlive it.
class KeyVisit {
 public:
  KeyVisit(std::shared_ptr<const ApiKey> key, QuotaGrant grant, MillisClock clock);
  KeyVisit(const KeyVisit&) = delete;
  KeyVisit& operator=(const KeyVisit&) = delete;
  ~KeyVisit();

  const ApiKey& key() const { return *key_; }

  /// Takes tokens as estimated before the work begins.
  std::optional<ApiError> reserve(std::int64_t tokens);
  /// What it really took. Ends the place among those at a time: called before the answer's last byte goes, so that who
  /// has read it finds the place free. The first call counts.
  void settle(std::int64_t tokens);
  void settle_unused();     // a request, no tokens
  void settle_refused();    // neither: the server had no room
  void settle_estimated();  // what is not counted in tokens of the model
  void add_headers(HttpHeaders& headers) const;

  /// Called once when the key is revoked or expires while the answer is on its way; at once where it is already.
  void on_revoked(std::function<void()> callback);
  void revoke();

 private:
  void end(const std::function<void(QuotaGrant&)>& settle);
  std::shared_ptr<const ApiKey> key_;
  MillisClock clock_;
  mutable std::mutex mutex_;
  std::optional<QuotaGrant> grant_;
  QuotaState state_;
  std::int64_t reserved_ = 0;
  bool worked_ = false, revoked_ = false;
  std::function<void()> on_revoked_;
};

}  // namespace tailor
