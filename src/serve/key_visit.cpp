#include "serve/key_visit.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace tailor {
namespace {

/// As OpenAI writes it: "1s", "6m0s", "120ms".
std::string span_text(std::chrono::milliseconds span) {
  const auto ms = span.count();
  if (ms < 1000) return fmt::format("{}ms", ms);
  const auto seconds = (ms + 999) / 1000;
  if (seconds < 60) return fmt::format("{}s", seconds);
  if (seconds < 3600) return fmt::format("{}m{}s", seconds / 60, seconds % 60);
  return fmt::format("{}h{}m{}s", seconds / 3600, seconds / 60 % 60, seconds % 60);
}

void add_bucket(std::string_view what, const QuotaState::Bucket& bucket, HttpHeaders& headers) {
  headers.add(fmt::format("x-ratelimit-limit-{}", what), std::to_string(bucket.limit));
  headers.add(fmt::format("x-ratelimit-remaining-{}", what), std::to_string(bucket.remaining));
  headers.add(fmt::format("x-ratelimit-reset-{}", what), span_text(bucket.reset));
}

std::string sentence_of(const QuotaRefusal& refusal) {
  switch (refusal.limit) {
    case QuotaLimit::kRequestsPerMinute:
      return fmt::format("this key may send {} requests a minute", refusal.allowed);
    case QuotaLimit::kTokensPerMinute:
      return fmt::format("this key may use {} tokens a minute, those of the prompt and those asked for together",
                         refusal.allowed);
    case QuotaLimit::kTokensPerDay:
      return fmt::format("this key may use {} tokens a day (of UTC)", refusal.allowed);
    case QuotaLimit::kConcurrent:
      return fmt::format("this key may have {} requests under way at a time", refusal.allowed);
    case QuotaLimit::kTooLarge:
      return fmt::format(
          "this request may need more than the {} tokens that its key has at all; waiting does not help: "
          "shorten the prompt or lower max_tokens",
          refusal.allowed);
    case QuotaLimit::kTooManyKeys:
      return "more keys are in use than this server keeps account of";
  }
  return {};
}

}  // namespace

UnixMillis system_millis() {
  return std::chrono::time_point_cast<std::chrono::milliseconds>(std::chrono::system_clock::now());
}

void add_quota_headers(const QuotaState& state, HttpHeaders& headers) {
  if (state.requests) add_bucket("requests", *state.requests, headers);
  if (state.tokens)
    add_bucket("tokens", *state.tokens, headers);
  else if (state.tokens_today)
    add_bucket("tokens", *state.tokens_today, headers);
}

ApiError quota_error(const QuotaRefusal& refusal) {
  const bool tokens = refusal.limit == QuotaLimit::kTokensPerMinute || refusal.limit == QuotaLimit::kTokensPerDay ||
                      refusal.limit == QuotaLimit::kTooLarge;
  ApiError error{429, tokens ? "tokens" : "requests", "rate_limit_exceeded", sentence_of(refusal), ""};
  const auto seconds = (refusal.retry_after.count() + 999) / 1000;
  error.retry_after_s = static_cast<int>(std::min<std::int64_t>(seconds, 86'400));
  if (refusal.limit == QuotaLimit::kTooLarge) error.headers.add("x-should-retry", "false");  // OpenAI's clients obey it
  add_quota_headers(refusal.state, error.headers);
  return error;
}

KeyVisit::KeyVisit(std::shared_ptr<const ApiKey> key, QuotaGrant grant, MillisClock clock)
    : key_(std::move(key)), clock_(std::move(clock)), grant_(std::move(grant)), state_(grant_->state()) {}

KeyVisit::~KeyVisit() {
  if (!worked_) settle_unused();
}

std::optional<ApiError> KeyVisit::reserve(std::int64_t tokens) {
  const std::lock_guard lock(mutex_);
  if (!grant_) return std::nullopt;
  if (const auto refusal = grant_->extend(tokens, clock_())) return quota_error(*refusal);
  worked_ = true;
  reserved_ += tokens;
  state_ = grant_->state();
  return std::nullopt;
}

void KeyVisit::end(const std::function<void(QuotaGrant&)>& settle) {
  const std::lock_guard lock(mutex_);
  if (!grant_) return;
  settle(*grant_);
  state_ = grant_->state();
  grant_.reset();
}

void KeyVisit::settle(std::int64_t tokens) {
  if (tokens <= 0) return settle_unused();
  end([&](QuotaGrant& grant) { grant.settle(tokens, clock_()); });
}

void KeyVisit::settle_unused() {
  end([&](QuotaGrant& grant) { grant.settle_unused(clock_()); });
}

void KeyVisit::settle_refused() {
  end([&](QuotaGrant& grant) { grant.settle(0, clock_()); });
}

void KeyVisit::settle_estimated() {
  end([&](QuotaGrant& grant) { grant.settle(std::max<std::int64_t>(1, reserved_), clock_()); });
}

void KeyVisit::add_headers(HttpHeaders& headers) const {
  const std::lock_guard lock(mutex_);
  add_quota_headers(state_, headers);
}

void KeyVisit::on_revoked(std::function<void()> callback) {
  {
    const std::lock_guard lock(mutex_);
    if (!revoked_) {
      on_revoked_ = std::move(callback);
      return;
    }
  }
  callback();
}

void KeyVisit::revoke() {
  std::function<void()> callback;
  {
    const std::lock_guard lock(mutex_);
    if (std::exchange(revoked_, true)) return;
    callback = std::exchange(on_revoked_, {});
  }
  if (callback) callback();
}

}  // namespace tailor
