#include "store/api_key.h"

#include <fmt/format.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <set>
#include <utility>

#include "core/hash.h"
#include "store/names.h"

namespace tailor {
namespace {

constexpr std::array<Scope, 3> kScopes = {Scope::kInfer, Scope::kAdmin, Scope::kMetrics};
constexpr std::size_t kHash = 32, kMinSecret = 20, kMaxSecret = 256;
using Hash = std::array<unsigned char, EVP_MAX_MD_SIZE>;

/// EVP_sha256() looks the algorithm up at every use, which costs more than the hash of a short text.
const EVP_MD* sha256() {
  static const std::unique_ptr<EVP_MD, decltype(&EVP_MD_free)> md(EVP_MD_fetch(nullptr, "SHA256", nullptr),
                                                                  &EVP_MD_free);
  return md.get();
}

Hash digest(std::string_view secret) {
  thread_local const std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> context(EVP_MD_CTX_new(),
                                                                                     &EVP_MD_CTX_free);
  Hash hash{};
  if (EVP_DigestInit_ex2(context.get(), sha256(), nullptr) != 1 ||
      EVP_DigestUpdate(context.get(), secret.data(), secret.size()) != 1 ||
      EVP_DigestFinal_ex(context.get(), hash.data(), nullptr) != 1)
    throw Exception({ErrorCode::kInternal, "libcrypto cannot compute SHA-256", ""});
  return hash;
}

std::uint64_t bucket_of(const void* hash) {
  std::uint64_t bucket = 0;
  std::memcpy(&bucket, hash, sizeof bucket);
  return bucket;
}

std::optional<std::string> from_hex(std::string_view hex) {
  if (hex.size() != 2 * kHash) return std::nullopt;
  std::string bytes;
  for (std::size_t i = 0; i < hex.size(); i += 2) {
    int value = 0;
    for (const char c : hex.substr(i, 2)) {
      const bool digit = c >= '0' && c <= '9', letter = c >= 'a' && c <= 'f';
      if (!digit && !letter) return std::nullopt;
      value = value * 16 + (digit ? c - '0' : c - 'a' + 10);
    }
    bytes += static_cast<char>(value);
  }
  return bytes;
}

bool is_over(const ApiKey& key, std::int64_t now) {
  return key.revoked_at || (key.expires_at && *key.expires_at <= now);
}

Result<AuthEntry> parse_entry(const Json& json, const std::string& where) {
  const auto wrong = [&](std::string_view field, std::string_view expected) {
    return Error{ErrorCode::kInvalidArgument, fmt::format("{}: \"{}\": expected {}", where, field, expected), ""};
  };
  if (!json.is_object()) return Error{ErrorCode::kInvalidArgument, where + ": expected an object", ""};
  ApiKey key;
  std::string secret, hash;
  for (const auto& [field, value] : json.items()) {
    const bool text = value.is_string();
    const bool count = value.is_number_integer() && value.get<std::int64_t>() >= 0;
    if (field == "id" || field == "name" || field == "key") {
      if (!text) return wrong(field, "a text");
      (field == "id" ? key.id : field == "name" ? key.name : secret) = value.get<std::string>();
    } else if (field == "sha256") {
      const auto bytes = text ? from_hex(value.get<std::string>()) : std::nullopt;
      if (!bytes) return wrong(field, "64 hex digits, lower case");
      hash = *bytes;
    } else if (field == "scopes") {
      std::string list;
      for (const Json& scope : value) {
        if (!scope.is_string()) return wrong(field, "a list of texts");
        list += (list.empty() ? "" : ",") + scope.get<std::string>();
      }
      const auto scopes = parse_scopes(list);
      if (!scopes)
        return Error{ErrorCode::kInvalidArgument, where + ": " + scopes.error().message, scopes.error().hint};
      key.scopes = *scopes;
    } else {
      const std::array<std::pair<const char*, std::int64_t*>, 4> limits = {{
          {"requests_per_minute", &key.quotas.requests_per_minute},
          {"tokens_per_minute", &key.quotas.tokens_per_minute},
          {"tokens_per_day", &key.quotas.tokens_per_day},
          {"max_concurrent", &key.quotas.max_concurrent},
      }};
      const auto* const limit =
          std::find_if(limits.begin(), limits.end(), [&f = field](const auto& l) { return l.first == f; });
      const bool expiry = field == "expires_at";
      if (!expiry && limit == limits.end()) {
        return Error{ErrorCode::kInvalidArgument, fmt::format("{}: unknown field \"{}\"", where, field),
                     "known: id, key, sha256, name, scopes, expires_at, requests_per_minute, tokens_per_minute, "
                     "tokens_per_day, max_concurrent"};
      }
      if (!count) return wrong(field, "a whole number of at least 0");
      if (expiry) key.expires_at = value.get<std::int64_t>();
      if (!expiry) *limit->second = value.get<std::int64_t>();
    }
  }
  if (const Status named = check_name(key.id, "key's id"); !named) return wrong("id", named.error().hint);
  if (key.name.empty()) key.name = key.id;
  if (secret.empty() == hash.empty()) return wrong("key", "a secret, or its hash as \"sha256\"; one of them");
  if (!hash.empty()) return AuthEntry{std::move(key), std::move(hash)};
  auto entry = AuthEntry::from_secret(std::move(key), secret);
  if (!entry) return Error{entry.error().code, where + ": " + entry.error().message, entry.error().hint};
  return entry;
}

}  // namespace

std::string_view to_string(Scope scope) {
  switch (scope) {
    case Scope::kInfer:
      return "infer";
    case Scope::kAdmin:
      return "admin";
    case Scope::kMetrics:
      return "metrics";
  }
  return "";
}

std::string to_string(const Scopes& scopes) {
  std::string text;
  for (const Scope scope : kScopes) {
    if (scopes.has(scope)) text += fmt::format("{}{}", text.empty() ? "" : ",", to_string(scope));
  }
  return text;
}

Result<Scopes> parse_scopes(std::string_view text) {
  Scopes scopes;
  for (std::string_view rest = text; !rest.empty();) {
    const std::string_view word = rest.substr(0, rest.find(','));
    rest.remove_prefix(std::min(rest.size(), word.size() + 1));
    bool known = false;
    for (const Scope scope : kScopes) {
      if (word != to_string(scope)) continue;
      scopes.add(scope);
      known = true;
    }
    if (!known)
      return Error{ErrorCode::kInvalidArgument, fmt::format("\"{}\" is not a scope", word),
                   "one of infer, admin, metrics"};
  }
  if (scopes.empty())
    return Error{ErrorCode::kInvalidArgument, "a key needs a scope", "one or more of infer, admin, metrics"};
  return scopes;
}

Status check_limits(const QuotaLimits& limits) {
  for (const auto& [name, value] : {std::pair{"requests_per_minute", limits.requests_per_minute},
                                    {"tokens_per_minute", limits.tokens_per_minute},
                                    {"tokens_per_day", limits.tokens_per_day},
                                    {"max_concurrent", limits.max_concurrent}}) {
    if (value < 0) {
      return Error{ErrorCode::kInvalidArgument, fmt::format("{} is {}; it cannot be below 0", name, value),
                   "0 means no limit"};
    }
  }
  return {};
}

std::string hash_secret(std::string_view secret) {
  const Hash hash = digest(secret);
  return {reinterpret_cast<const char*>(hash.data()), kHash};
}

std::string derive_cache_salt(std::string_view store_secret, std::string_view key_id) {
  Hash mac{};
  unsigned int size = 0;
  if (HMAC(sha256(), store_secret.data(), static_cast<int>(store_secret.size()),
           reinterpret_cast<const unsigned char*>(key_id.data()), key_id.size(), mac.data(), &size) == nullptr)
    throw Exception({ErrorCode::kInternal, "libcrypto cannot compute HMAC-SHA-256", ""});
  return to_hex({reinterpret_cast<const char*>(mac.data()), size});
}

Result<AuthEntry> AuthEntry::from_secret(ApiKey key, std::string_view secret) {
  const bool printable = std::all_of(secret.begin(), secret.end(), [](char c) { return c > 0x20 && c < 0x7F; });
  if (secret.size() < kMinSecret || secret.size() > kMaxSecret || !printable) {
    return Error{ErrorCode::kInvalidArgument, fmt::format("the secret of key {} cannot be used", key.id),
                 fmt::format("{} to {} characters, printable, without blanks; random ones", kMinSecret, kMaxSecret)};
  }
  TAILOR_CHECK(check_limits(key.quotas));
  return AuthEntry{std::move(key), hash_secret(secret)};
}

Result<std::vector<AuthEntry>> parse_auth_entries(const Json& list, std::string_view where) {
  if (!list.is_array())
    return Error{ErrorCode::kInvalidArgument, fmt::format("{}: expected a list of keys", where), ""};
  std::vector<AuthEntry> entries;
  for (std::size_t i = 0; i < list.size(); ++i) {
    TAILOR_TRY(AuthEntry entry, parse_entry(list[i], fmt::format("{}: key {}", where, i + 1)));
    entries.push_back(std::move(entry));
  }
  return entries;
}

Result<std::shared_ptr<const AuthSnapshot>> AuthSnapshot::from_entries(std::vector<AuthEntry> entries,
                                                                       std::string_view store_secret) {
  const auto snapshot = std::make_shared<AuthSnapshot>();
  std::set<std::string> ids, hashes;
  for (AuthEntry& entry : entries) {
    if (entry.hash.size() != kHash)
      return Error{ErrorCode::kInvalidArgument,
                   fmt::format("the hash of key {} has {} bytes instead of {}", entry.key.id, entry.hash.size(), kHash),
                   ""};
    if (!ids.insert(entry.key.id).second)
      return Error{ErrorCode::kInvalidArgument, fmt::format("two keys have the id {}", entry.key.id), "rename one"};
    if (!hashes.insert(entry.hash).second)
      return Error{ErrorCode::kInvalidArgument, fmt::format("key {} has the secret of another one", entry.key.id),
                   "give each key a secret of its own"};
    if (entry.key.cache_salt.empty()) entry.key.cache_salt = derive_cache_salt(store_secret, entry.key.id);
    snapshot->by_hash_.emplace(bucket_of(entry.hash.data()), snapshot->entries_.size());
    snapshot->by_id_.emplace(entry.key.id, snapshot->entries_.size());
    snapshot->entries_.push_back({std::move(entry.hash), std::make_shared<const ApiKey>(std::move(entry.key))});
  }
  return std::shared_ptr<const AuthSnapshot>(snapshot);
}

std::shared_ptr<const ApiKey> AuthSnapshot::find(std::string_view secret, std::int64_t now) const {
  if (secret.size() > kMaxSecret) return nullptr;
  const Hash hash = digest(secret);
  const auto [first, last] = by_hash_.equal_range(bucket_of(hash.data()));
  for (auto it = first; it != last; ++it) {
    const Stored& stored = entries_[it->second];
    if (CRYPTO_memcmp(stored.hash.data(), hash.data(), kHash) != 0) continue;
    return is_over(*stored.key, now) ? nullptr : stored.key;
  }
  return nullptr;
}

std::shared_ptr<const ApiKey> AuthSnapshot::by_id(const std::string& id, std::int64_t now) const {
  const auto found = by_id_.find(id);
  if (found == by_id_.end() || is_over(*entries_[found->second].key, now)) return nullptr;
  return entries_[found->second].key;
}

}  // namespace tailor
