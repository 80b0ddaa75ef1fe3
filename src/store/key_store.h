#pragma once
/// API keys: made, listed, revoked in the store; checked in memory.

#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "core/result.h"
#include "store/api_key.h"
#include "store/audit_log.h"
#include "store/store_context.h"

namespace tailor {

struct NewApiKey {
  std::string name;
  Scopes scopes = {Scope::kInfer};
  QuotaLimits quotas;
  std::optional<std::int64_t> expires_at;  // seconds since 1970
};

struct CreatedApiKey {
  ApiKey key;
  std::string secret;  // "tlr-…", 256 random bits; shown once, stored nowhere
};

/// Threads: any. snapshot() and authenticate() touch no database and hold a lock for the copy of one pointer.
class KeyStore {
 public:
  explicit KeyStore(StoreContext context) : context_(context) {}

  /// create() and revoke() are there together with their entry in the audit log, or not at all.
  Result<CreatedApiKey> create(const NewApiKey& wanted, const std::string& actor = kCommandLine);
  Result<std::vector<ApiKey>> list() const;  // those of the database, revoked and expired ones too, the oldest first
  Result<ApiKey> find(const std::string& id) const;
  /// At once in this process; again: nothing.
  Status revoke(const std::string& id, const std::string& actor = kCommandLine);
  Status set_quotas(const std::string& id, const QuotaLimits& quotas);

  std::shared_ptr<const AuthSnapshot> snapshot() const;
  /// snapshot()->find() at `now`, and remembers the use.
  std::shared_ptr<const ApiKey> authenticate(std::string_view secret, std::int64_t now);

  /// Reads the keys; called when the store opens.
  Status load();
  /// Reads the keys if another process changed them since; true where it did. One small query: once a second is cheap.
  Result<bool> refresh();
  /// Keys that stand beside those of the database, from a file or the environment; replaces earlier ones. On an error
  /// (an id or secret twice) those stay.
  Status set_fixed(std::vector<AuthEntry> entries);
  /// Writes when keys were used, where that is a minute or more after what is written.
  Status flush_last_used();

 private:
  Result<std::shared_ptr<const AuthSnapshot>> build(std::int64_t* version, const std::vector<AuthEntry>& fixed) const;

  StoreContext context_;
  mutable std::mutex reload_mutex_;  // one load at a time; guards version_ and fixed_
  std::int64_t version_ = -1;
  std::vector<AuthEntry> fixed_;
  mutable std::mutex snapshot_mutex_;
  std::shared_ptr<const AuthSnapshot> snapshot_;
  std::mutex used_mutex_;
  std::unordered_map<std::string, std::int64_t> used_;  // by id; not more than there are keys
};

}  // namespace tailor
