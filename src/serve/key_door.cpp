#include "serve/key_door.h"

#include <fmt/format.h>

#include <algorithm>
#include <tuple>

namespace tailor {
namespace {

/// Quotas need today alone; a bill may be looked into for a year after.
constexpr std::int64_t kKeptDays = 400;

std::int64_t seconds_of(UnixMillis now) {
  return std::chrono::floor<std::chrono::seconds>(now).time_since_epoch().count();
}

/// The secret that a request shows; empty: none, or more than one in the same field.
std::string_view shown_secret(const HttpHead& head) {
  if (head.headers.count("Authorization") > 1 || head.headers.count("X-Api-Key") > 1) return {};
  if (const std::string* authorization = head.headers.find("Authorization")) {
    std::string_view text = *authorization;
    constexpr std::string_view kBearer = "Bearer ";
    if (text.size() <= kBearer.size() || !same_name(text.substr(0, kBearer.size()), kBearer)) return {};
    text.remove_prefix(kBearer.size());
    while (text.starts_with(' ')) text.remove_prefix(1);
    return text;
  }
  const std::string* key = head.headers.find("X-Api-Key");
  return key == nullptr ? std::string_view() : std::string_view(*key);
}

Scope scope_of(ApiScope scope) {
  return scope == ApiScope::kAdmin ? Scope::kAdmin : scope == ApiScope::kMetrics ? Scope::kMetrics : Scope::kInfer;
}

ApiError no_key() {
  return {401, "authentication_error", "invalid_api_key",
          "a valid API key is needed, as 'Authorization: Bearer KEY' or 'X-Api-Key: KEY'", ""};
}

}  // namespace

KeyDoor::KeyDoor(Store& store, Logger& log, KeyDoorOptions options)
    : store_(store), log_(log), options_(std::move(options)) {
  if (!options_.clock) options_.clock = system_millis;
  closed_ = options_.required;
  look();
  save();
  thread_ = std::thread([this] { run(); });
}

KeyDoor::~KeyDoor() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  thread_.join();
  save();
}

bool KeyDoor::closed() const {
  if (closed_) return true;
  const auto snapshot = store_.keys().snapshot();
  return !snapshot || snapshot->size() > 0;
}

ApiResult<Principal> KeyDoor::check(const HttpHead& head, ApiScope scope) {
  if (!closed()) {
    // On a machine of several users nobody else should change what is served.
    if (scope == ApiScope::kAdmin)
      return ApiError{403, "permission_error", "insufficient_scope",
                      "this needs a key: `tailor keys create --name NAME --scope admin` makes one", ""};
    return Principal{};
  }
  const UnixMillis now = options_.clock();
  std::shared_ptr<const ApiKey> key = shown_key(head, now);
  if (!key) return no_key();
  const bool allowed =
      key->scopes.has(scope_of(scope)) || (scope == ApiScope::kInferOrAdmin && key->scopes.has(Scope::kAdmin));
  if (!allowed)
    return ApiError{
        403, "permission_error", "insufficient_scope",
        fmt::format("this key has no scope '{}'; it has {}", to_string(scope_of(scope)), to_string(key->scopes)), ""};
  auto admitted = ledger_.admit(key->id, key->quotas, 0, now);
  if (const auto* refusal = std::get_if<QuotaRefusal>(&admitted)) return quota_error(*refusal);
  return let_in(std::move(key), std::move(std::get<QuotaGrant>(admitted)));
}

std::shared_ptr<const ApiKey> KeyDoor::shown_key(const HttpHead& head, UnixMillis now) const {
  const std::string_view secret = shown_secret(head);
  return secret.empty() ? nullptr : store_.keys().authenticate(secret, seconds_of(now));
}

bool KeyDoor::may_hear_reasons(const HttpHead& head) {
  if (!closed()) return true;
  const std::shared_ptr<const ApiKey> key = shown_key(head, options_.clock());
  return key && (key->scopes.has(Scope::kMetrics) || key->scopes.has(Scope::kAdmin));
}

ApiResult<Principal> KeyDoor::background(const std::string& key_id) {
  if (key_id.empty()) return Principal{};
  const UnixMillis now = options_.clock();
  const auto snapshot = store_.keys().snapshot();
  std::shared_ptr<const ApiKey> key = snapshot ? snapshot->by_id(key_id, seconds_of(now)) : nullptr;
  if (!key || !key->scopes.has(Scope::kInfer))
    return ApiError{401, "authentication_error", "invalid_api_key", "the API key was revoked or has expired", ""};
  auto admitted = ledger_.admit_background(key->id, key->quotas, now);
  if (const auto* refusal = std::get_if<QuotaRefusal>(&admitted)) return quota_error(*refusal);
  return let_in(std::move(key), std::move(std::get<QuotaGrant>(admitted)));
}

Principal KeyDoor::let_in(std::shared_ptr<const ApiKey> key, QuotaGrant grant) {
  auto visit = std::make_shared<KeyVisit>(key, std::move(grant), options_.clock);
  {
    const std::lock_guard lock(visits_mutex_);
    if (visits_.size() >= sweep_at_) {
      std::erase_if(visits_, [](const auto& v) { return v.expired(); });
      sweep_at_ = std::max<std::size_t>(64, 2 * visits_.size());
    }
    visits_.push_back(visit);
  }
  return Principal{.key_id = key->id,
                   .cache_salt = key->cache_salt,
                   .administers = key->scopes.has(Scope::kAdmin),
                   .visit = std::move(visit)};
}

void KeyDoor::look() {
  KeyStore& keys = store_.keys();
  const auto changed = keys.refresh();
  if (!changed && !unread_.exchange(true)) log_.warning("keys cannot be read again: " + to_string(changed.error()));
  if (changed) unread_ = false;
  if (!closed_) {
    const auto known = keys.list();
    const auto usable = keys.snapshot();  // fixed ones too, which list() does not name
    if (!known || !known->empty() || !usable || usable->size() > 0) {
      std::ignore = keys.refresh();  // one made since the look above is let in from the moment the door closes
      closed_ = true;                // a store that cannot be read lets nobody in
    }
  }
  const auto snapshot = keys.snapshot();
  if (!snapshot) return;
  const std::int64_t now = seconds_of(options_.clock());
  std::vector<std::shared_ptr<KeyVisit>> over;
  {
    const std::lock_guard lock(visits_mutex_);
    for (const auto& weak : visits_) {
      auto visit = weak.lock();
      if (visit && !snapshot->valid(visit->key().id, now)) over.push_back(std::move(visit));
    }
  }
  for (const auto& visit : over) visit->revoke();
}

void KeyDoor::save() {
  const UnixMillis now = options_.clock();
  if (const Status saved = store_.token_days().sync(ledger_, now); !saved)
    log_.warning("what keys used cannot be saved: " + to_string(saved.error()));
  forget_days(now);
  if (const Status saved = store_.keys().flush_last_used(); !saved)
    log_.warning("the use of keys cannot be saved: " + to_string(saved.error()));
}

/// Once a day.
void KeyDoor::forget_days(UnixMillis now) {
  const std::int64_t today = std::chrono::floor<std::chrono::days>(now).time_since_epoch().count();
  if (today == forgot_on_) return;
  forgot_on_ = today;
  if (const Status removed = store_.token_days().remove_before(today - kKeptDays); !removed)
    log_.warning("what keys used long ago cannot be removed: " + to_string(removed.error()));
}

void KeyDoor::run() {
  auto saved = std::chrono::steady_clock::now();
  std::unique_lock lock(mutex_);
  while (!changed_.wait_for(lock, options_.look_every, [&] { return stopping_; })) {
    lock.unlock();
    look();
    if (std::chrono::steady_clock::now() - saved >= options_.save_every) {
      save();
      saved = std::chrono::steady_clock::now();
    }
    lock.lock();
  }
}

}  // namespace tailor
