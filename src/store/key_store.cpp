#include "store/key_store.h"

#include <fmt/format.h>

#include <tuple>
#include <utility>

#include "store/names.h"
#include "store/random_id.h"

namespace tailor {
namespace {

constexpr std::string_view kSelect =
    "SELECT id, name, scopes, requests_per_minute, tokens_per_minute, tokens_per_day, max_concurrent, created_at, "
    "expires_at, revoked_at, last_used_at, hash FROM keys";
constexpr std::int64_t kLastUsedStep = 60;

Result<AuthEntry> entry_of(const Row& row) {
  AuthEntry entry;
  ApiKey& key = entry.key;
  key.id = row.text(0);
  key.name = row.text(1);
  TAILOR_TRY(key.scopes, parse_scopes(row.text(2)));
  key.quotas = {row.integer(3), row.integer(4), row.integer(5), row.integer(6)};
  key.created_at = row.integer(7);
  key.expires_at = row.optional_integer(8);
  key.revoked_at = row.optional_integer(9);
  key.last_used_at = row.optional_integer(10);
  entry.hash = row.text(11);
  return entry;
}

/// The secret from which salts are derived; made when first asked for.
Result<std::string> store_secret(Transaction& transaction) {
  std::string secret;
  TAILOR_CHECK(
      transaction.first("SELECT value FROM secrets WHERE name = 'cache_salt'", {}, [&](const Row& row) -> Status {
        secret = row.text(0);
        return {};
      }));
  if (!secret.empty()) return secret;
  secret = random_bytes(32);
  TAILOR_CHECK(transaction.run("INSERT INTO secrets VALUES ('cache_salt', ?)", {Blob{secret}}));
  return secret;
}

Result<std::int64_t> version_of(Transaction& transaction) {
  std::int64_t version = 0;
  TAILOR_CHECK(transaction.first("SELECT value FROM counters WHERE name = 'keys'", {}, [&](const Row& row) -> Status {
    version = row.integer(0);
    return {};
  }));
  return version;
}

Status raise_version(Transaction& transaction) {
  TAILOR_CHECK(transaction.run("UPDATE counters SET value = value + 1 WHERE name = 'keys'"));
  return {};
}

Json audit_details(const NewApiKey& key) {
  return {{"name", key.name},
          {"scopes", to_string(key.scopes)},
          {"expires_at", key.expires_at ? Json(*key.expires_at) : Json(nullptr)}};
}

Error unknown(const std::string& id) {
  return {ErrorCode::kNotFound, fmt::format("there is no key {}", id), "`tailor keys list` names those there are"};
}

}  // namespace

Result<CreatedApiKey> KeyStore::create(const NewApiKey& wanted, const std::string& actor) {
  TAILOR_CHECK(check_label(wanted.name, "name of a key"));
  TAILOR_CHECK(check_limits(wanted.quotas));
  if (wanted.scopes.empty())
    return Error{ErrorCode::kInvalidArgument, fmt::format("key {} has no scope", wanted.name),
                 "one or more of infer, admin, metrics"};
  const std::int64_t now = context_.clock();
  if (wanted.expires_at && *wanted.expires_at <= now)
    return Error{ErrorCode::kInvalidArgument, fmt::format("key {} would have expired already", wanted.name), ""};
  CreatedApiKey created;
  created.secret = random_id("tlr-", 43);  // 43 characters of 62: 256 bits
  created.key = {.id = random_id("key_", 16),
                 .name = wanted.name,
                 .scopes = wanted.scopes,
                 .quotas = wanted.quotas,
                 .created_at = now,
                 .expires_at = wanted.expires_at};
  const std::string hash = hash_secret(created.secret);
  {
    TAILOR_TRY(Transaction transaction, context_.database.write());
    const QuotaLimits& quotas = wanted.quotas;
    TAILOR_CHECK(transaction.run(
        "INSERT INTO keys(id, name, hash, scopes, requests_per_minute, tokens_per_minute, tokens_per_day, "
        "max_concurrent, created_at, expires_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        {created.key.id, wanted.name, Blob{hash}, to_string(wanted.scopes), quotas.requests_per_minute,
         quotas.tokens_per_minute, quotas.tokens_per_day, quotas.max_concurrent, now, wanted.expires_at}));
    TAILOR_TRY(const std::string secret, store_secret(transaction));
    created.key.cache_salt = derive_cache_salt(secret, created.key.id);
    TAILOR_CHECK(raise_version(transaction));
    TAILOR_CHECK(append_audit(transaction, now, {actor, "key.create", created.key.id, audit_details(wanted)}));
    TAILOR_CHECK(transaction.commit());
  }
  std::ignore = load();  // the secret must not be lost over it; refresh() tries again
  return created;
}

Result<std::vector<ApiKey>> KeyStore::list() const {
  TAILOR_TRY(Transaction transaction, context_.database.read());
  std::vector<ApiKey> keys;
  TAILOR_CHECK(
      transaction.each(fmt::format("{} ORDER BY created_at, rowid", kSelect), {}, [&](const Row& row) -> Status {
        TAILOR_TRY(AuthEntry entry, entry_of(row));
        keys.push_back(std::move(entry.key));
        return {};
      }));
  return keys;
}

Result<ApiKey> KeyStore::find(const std::string& id) const {
  TAILOR_TRY(Transaction transaction, context_.database.read());
  AuthEntry entry;
  TAILOR_TRY(const bool found,
             transaction.first(fmt::format("{} WHERE id = ?", kSelect), {id}, [&](const Row& row) -> Status {
               TAILOR_TRY(entry, entry_of(row));
               return {};
             }));
  if (!found) return unknown(id);
  return entry.key;
}

Status KeyStore::revoke(const std::string& id, const std::string& actor) {
  {
    TAILOR_TRY(Transaction transaction, context_.database.write());
    TAILOR_TRY(const bool known, transaction.first("SELECT 1 FROM keys WHERE id = ?", {id}, {}));
    if (!known) return unknown(id);
    const std::int64_t now = context_.clock();
    TAILOR_TRY(const std::int64_t revoked,
               transaction.run("UPDATE keys SET revoked_at = ? WHERE id = ? AND revoked_at IS NULL", {now, id}));
    if (revoked > 0) {
      TAILOR_CHECK(raise_version(transaction));
      TAILOR_CHECK(append_audit(transaction, now, {actor, "key.revoke", id}));
      TAILOR_CHECK(transaction.commit());
    }
  }
  return load();
}

Status KeyStore::set_quotas(const std::string& id, const QuotaLimits& quotas) {
  TAILOR_CHECK(check_limits(quotas));
  {
    TAILOR_TRY(Transaction transaction, context_.database.write());
    TAILOR_TRY(const std::int64_t found,
               transaction.run("UPDATE keys SET requests_per_minute = ?, tokens_per_minute = ?, tokens_per_day = ?, "
                               "max_concurrent = ? WHERE id = ?",
                               {quotas.requests_per_minute, quotas.tokens_per_minute, quotas.tokens_per_day,
                                quotas.max_concurrent, id}));
    if (found == 0) return unknown(id);
    TAILOR_CHECK(raise_version(transaction));
    TAILOR_CHECK(transaction.commit());
  }
  return load();
}

std::shared_ptr<const AuthSnapshot> KeyStore::snapshot() const {
  const std::lock_guard lock(snapshot_mutex_);
  return snapshot_;
}

std::shared_ptr<const ApiKey> KeyStore::authenticate(std::string_view secret, std::int64_t now) {
  const auto current = snapshot();
  std::shared_ptr<const ApiKey> key = current ? current->find(secret, now) : nullptr;
  if (key) {
    const std::lock_guard lock(used_mutex_);
    used_[key->id] = now;
  }
  return key;
}

Result<std::shared_ptr<const AuthSnapshot>> KeyStore::build(std::int64_t* version,
                                                            const std::vector<AuthEntry>& fixed) const {
  std::vector<AuthEntry> entries = fixed;
  std::string secret;
  {
    TAILOR_TRY(Transaction transaction, context_.database.write());  // the salt may have to be made
    TAILOR_TRY(secret, store_secret(transaction));
    TAILOR_TRY(*version, version_of(transaction));
    TAILOR_CHECK(
        transaction.each(fmt::format("{} WHERE revoked_at IS NULL", kSelect), {}, [&](const Row& row) -> Status {
          TAILOR_TRY(AuthEntry entry, entry_of(row));
          entries.push_back(std::move(entry));
          return {};
        }));
    TAILOR_CHECK(transaction.commit());
  }
  return AuthSnapshot::from_entries(std::move(entries), secret);
}

Status KeyStore::load() {
  const std::lock_guard loading(reload_mutex_);
  std::int64_t version = 0;
  TAILOR_TRY(auto snapshot, build(&version, fixed_));
  version_ = version;
  const std::lock_guard lock(snapshot_mutex_);
  snapshot_ = std::move(snapshot);
  return {};
}

Result<bool> KeyStore::refresh() {
  std::int64_t version = 0;
  {
    TAILOR_TRY(Transaction transaction, context_.database.read());
    TAILOR_TRY(version, version_of(transaction));
  }
  {
    const std::lock_guard loading(reload_mutex_);
    if (version == version_) return false;
  }
  TAILOR_CHECK(load());
  return true;
}

Status KeyStore::set_fixed(std::vector<AuthEntry> entries) {
  const std::lock_guard loading(reload_mutex_);
  std::int64_t version = 0;
  TAILOR_TRY(auto snapshot, build(&version, entries));
  version_ = version;
  fixed_ = std::move(entries);
  const std::lock_guard lock(snapshot_mutex_);
  snapshot_ = std::move(snapshot);
  return {};
}

Status KeyStore::flush_last_used() {
  std::unordered_map<std::string, std::int64_t> used;
  {
    const std::lock_guard lock(used_mutex_);
    used.swap(used_);
  }
  if (used.empty()) return {};
  TAILOR_TRY(Transaction transaction, context_.database.write());
  for (const auto& [id, at] : used) {
    TAILOR_CHECK(transaction.run(
        "UPDATE keys SET last_used_at = ?1 WHERE id = ?2 AND (last_used_at IS NULL OR last_used_at <= ?1 - ?3)",
        {at, id, kLastUsedStep}));
  }
  return transaction.commit();
}

}  // namespace tailor
