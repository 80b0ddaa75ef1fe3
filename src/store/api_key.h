#pragma once
/// API keys as a server checks them: an immutable table in memory, looked up by the hash of the secret.

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "core/json.h"
#include "core/result.h"

namespace tailor {

enum class Scope : std::uint8_t { kInfer = 1, kAdmin = 2, kMetrics = 4 };

std::string_view to_string(Scope scope);  // "infer", "admin", "metrics"

/// A set of scopes. None includes another: a key for administration cannot chat unless it says so.
class Scopes {
 public:
  Scopes() = default;
  Scopes(std::initializer_list<Scope> scopes) {
    for (const Scope scope : scopes) add(scope);
  }
  void add(Scope scope) { bits_ |= static_cast<std::uint8_t>(scope); }
  bool has(Scope scope) const { return (bits_ & static_cast<std::uint8_t>(scope)) != 0; }
  bool empty() const { return bits_ == 0; }
  friend bool operator==(const Scopes&, const Scopes&) = default;

 private:
  std::uint8_t bits_ = 0;
};
std::string to_string(const Scopes& scopes);         // "infer,metrics"
Result<Scopes> parse_scopes(std::string_view text);  // the same way back; at least one

/// 0: no limit.
struct QuotaLimits {
  std::int64_t requests_per_minute = 0;
  std::int64_t tokens_per_minute = 0;
  std::int64_t tokens_per_day = 0;  // of UTC
  std::int64_t max_concurrent = 0;
  friend bool operator==(const QuotaLimits&, const QuotaLimits&) = default;
};
Status check_limits(const QuotaLimits& limits);  // none below 0

struct ApiKey {
  std::string id;    // "key_…", or a name from a file; may stand in logs and metrics
  std::string name;  // for people
  Scopes scopes = {Scope::kInfer};
  QuotaLimits quotas;
  std::int64_t created_at = 0;
  std::optional<std::int64_t> expires_at, revoked_at, last_used_at;  // the last to the minute
  std::string cache_salt;  // 64 hex characters; keeps what one key's prompts left in caches from another's
};

/// SHA-256 of a secret, 32 bytes. A slow hash is for passwords, which can be guessed; a secret of 256 random bits
/// cannot, and a slow hash would let anybody keep the server busy with wrong keys. Secrets from a file must be as
/// random: AuthEntry::from_secret asks for 20 characters at least.
std::string hash_secret(std::string_view secret);
/// HMAC-SHA-256 of the key's id under a secret of the store, in hex.
std::string derive_cache_salt(std::string_view store_secret, std::string_view key_id);

struct AuthEntry {
  ApiKey key;
  std::string hash;  // hash_secret()
  static Result<AuthEntry> from_secret(ApiKey key, std::string_view secret);
};

/// Entries of a file of keys that somebody wrote by hand (YAML or JSON, read by the caller) or of the environment:
///   [{"id": "ci", "key": "…" or "sha256": "<64 hex>", "name", "scopes": ["infer"], "expires_at": seconds,
///     "requests_per_minute", "tokens_per_minute", "tokens_per_day", "max_concurrent"}]
/// Unknown fields are errors. No message shows a secret. `where` names the file.
Result<std::vector<AuthEntry>> parse_auth_entries(const Json& list, std::string_view where);

/// Threads: immutable. A lookup hashes the secret, finds a bucket by the hash's first bytes (which tell an attacker
/// nothing he can use: he cannot choose them) and compares the whole of it in constant time.
class AuthSnapshot {
 public:
  /// Two entries with the same secret or id are kInvalidArgument. Empty salts are derived from `store_secret`.
  static Result<std::shared_ptr<const AuthSnapshot>> from_entries(std::vector<AuthEntry> entries,
                                                                  std::string_view store_secret);

  /// The key of a secret, null where it is unknown, expired or revoked at `now` (seconds since 1970).
  std::shared_ptr<const ApiKey> find(std::string_view secret, std::int64_t now) const;
  /// Whether the key of this id may be used at `now`.
  bool valid(const std::string& id, std::int64_t now) const { return by_id(id, now) != nullptr; }
  std::shared_ptr<const ApiKey> by_id(const std::string& id, std::int64_t now) const;  ///< null where it may not
  std::size_t size() const { return entries_.size(); }

 private:
  struct Stored {
    std::string hash;
    std::shared_ptr<const ApiKey> key;
  };
  std::vector<Stored> entries_;
  std::unordered_multimap<std::uint64_t, std::size_t> by_hash_;
  std::unordered_map<std::string, std::size_t> by_id_;
};

}  // namespace tailor
