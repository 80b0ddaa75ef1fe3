#include "infer/sampling.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/fast_math.h"
#include "core/rng.h"
#include "infer/log_softmax.h"

namespace tailor {
namespace {

constexpr float kNever = -std::numeric_limits<float>::infinity();
constexpr float kForbiddingBias = -100;

/// The first of the largest, by lanes that the compiler keeps in registers.
std::size_t argmax_of(std::span<const float> x) {
  constexpr std::size_t kLanes = 16;
  const std::size_t whole = x.size() / kLanes * kLanes;
  float maxima[kLanes];
  std::fill_n(maxima, kLanes, kNever);
  for (std::size_t i = 0; i < whole; i += kLanes) {
    for (std::size_t k = 0; k < kLanes; ++k) maxima[k] = x[i + k] > maxima[k] ? x[i + k] : maxima[k];
  }
  float most = *std::max_element(maxima, maxima + kLanes);
  for (std::size_t i = whole; i < x.size(); ++i) most = std::max(most, x[i]);
  const auto found = std::find(x.begin(), x.end(), most);
  return found == x.end() ? 0 : static_cast<std::size_t>(found - x.begin());  // none is a number
}

/// Of two candidates the likelier, of equal ones the smaller token.
bool before(const std::pair<float, std::int32_t>& a, const std::pair<float, std::int32_t>& b) {
  return a.first != b.first ? a.first > b.first : a.second < b.second;
}

}  // namespace

SampledToken read_logprobs(std::span<const float> logits, std::int32_t token, int count) {
  const double total = log_sum_exp(logits);
  const auto logprob = [&](std::int32_t t) {
    return static_cast<float>(static_cast<double>(logits[static_cast<std::size_t>(t)]) - total);
  };
  SampledToken out{token, logprob(token), {}};
  if (count <= 0) return out;
  const auto most = std::min(static_cast<std::size_t>(count), logits.size());
  std::vector<std::pair<float, std::int32_t>> best;  // a heap whose top is the worst of them
  for (std::size_t i = 0; i < logits.size(); ++i) {
    const std::pair<float, std::int32_t> candidate{logits[i], static_cast<std::int32_t>(i)};
    if (best.size() == most) {
      if (candidate.first <= best.front().first) continue;
      std::pop_heap(best.begin(), best.end(), before);
      best.pop_back();
    }
    best.push_back(candidate);
    std::push_heap(best.begin(), best.end(), before);
  }
  std::sort(best.begin(), best.end(), before);
  for (const auto& [logit, t] : best) out.top.push_back({t, logprob(t)});
  return out;
}

Sampler::Sampler(const SamplingOptions& options, std::span<const std::int32_t> prompt,
                 std::span<const std::int32_t> ends, int choice, std::unique_ptr<TokenConstraint> constraint)
    : options_(options),
      ends_(options_.stop_tokens),
      constraint_(std::move(constraint)),
      stream_(static_cast<std::uint64_t>(choice)) {
  for (const std::int32_t end : ends) {
    if (std::find(options_.stop_tokens.begin(), options_.stop_tokens.end(), end) != options_.stop_tokens.end())
      continue;
    ends_.push_back(end);
    if (options_.ignore_end) ignored_.push_back(end);
  }
  if (options_.repetition_penalty != 1) {
    for (const std::int32_t t : prompt) ++in_prompt_[t];
  }
}

void Sampler::penalise(std::span<float> logits) const {
  for (const auto& [token, bias] : options_.logit_bias) {
    float& logit = logits[static_cast<std::size_t>(token)];
    logit = bias <= kForbiddingBias ? kNever : logit + bias;
  }
  if (options_.repetition_penalty != 1) {
    const auto penalty = static_cast<float>(options_.repetition_penalty);
    const auto repeat = [&](std::int32_t token) {
      float& logit = logits[static_cast<std::size_t>(token)];
      logit = logit > 0 ? logit / penalty : logit * penalty;
    };
    for (const auto& [token, n] : in_prompt_) repeat(token);
    for (const auto& [token, n] : in_answer_) {
      if (!in_prompt_.contains(token)) repeat(token);
    }
  }
  if (options_.presence_penalty != 0 || options_.frequency_penalty != 0) {
    for (const auto& [token, n] : in_answer_)
      logits[static_cast<std::size_t>(token)] -=
          static_cast<float>(options_.presence_penalty + options_.frequency_penalty * n);
  }
}

Status Sampler::constrain(std::span<float> logits) {
  if (!constraint_) return {};
  mask_.assign((logits.size() + 31) / 32, 0);
  TAILOR_CHECK(constraint_->fill_mask(mask_));
  for (std::size_t word = 0; word < mask_.size(); ++word) {
    const std::uint32_t bits = mask_[word];
    if (bits == ~0u) continue;
    const std::size_t first = word * 32, last = std::min(logits.size(), first + 32);
    for (std::size_t i = first; i < last; ++i) {
      if ((bits >> (i - first) & 1u) == 0) logits[i] = kNever;
    }
  }
  return {};
}

/// Where nothing but an end may follow, the text that a constraint wants is complete: the end stays.
void Sampler::forbid_ends(std::span<float> logits) const {
  const bool early = drawn_ < static_cast<std::uint64_t>(std::max(0, options_.min_tokens));
  const std::vector<std::int32_t>& forbidden = early ? ends_ : ignored_;
  std::vector<std::pair<std::size_t, float>> were;
  for (const std::int32_t end : forbidden) {
    const auto at = static_cast<std::size_t>(end);
    were.emplace_back(at, std::exchange(logits[at], kNever));
  }
  if (std::any_of(logits.begin(), logits.end(), [](float logit) { return logit > kNever; })) return;
  // Backwards: a client may name a token twice.
  for (auto token = were.rbegin(); token != were.rend(); ++token) logits[token->first] = token->second;
}

std::int32_t Sampler::draw(std::span<float> logits) {
  const std::size_t best = argmax_of(logits);
  if (options_.temperature <= 0 || options_.top_k == 1) return static_cast<std::int32_t>(best);
  const float highest = logits[best];
  const auto heat = static_cast<float>(1 / options_.temperature);
  // Below this share of the likeliest one's probability a token weighs less than rounding does.
  constexpr float kNothing = -30;
  const float least = options_.min_p > 0 ? std::max(kNothing, static_cast<float>(std::log(options_.min_p))) : kNothing;
  candidates_.clear();
  for (std::size_t i = 0; i < logits.size(); ++i) {
    const float relative = (logits[i] - highest) * heat;
    if (relative >= least) candidates_.emplace_back(relative, static_cast<std::int32_t>(i));
  }
  const bool some = options_.top_k > 0 && static_cast<std::size_t>(options_.top_k) < candidates_.size();
  if (some) {
    const auto cut = candidates_.begin() + options_.top_k;
    std::nth_element(candidates_.begin(), cut, candidates_.end(), before);
    candidates_.erase(cut, candidates_.end());
  }
  double total = 0;
  for (auto& [weight, token] : candidates_) {
    weight = exp_nonpositive(weight);
    total += weight;
  }
  if (options_.top_p < 1) {
    std::sort(candidates_.begin(), candidates_.end(), before);
    double kept = 0;
    std::size_t n = 0;
    while (n < candidates_.size() && (n == 0 || kept < options_.top_p * total)) kept += candidates_[n++].first;
    candidates_.resize(n);
    total = kept;
  }
  Rng rng(options_.seed, stream_);
  rng.set_counter(drawn_);
  double at = rng.uniform() * total;
  if (candidates_.empty()) return static_cast<std::int32_t>(best);
  for (const auto& [weight, token] : candidates_) {
    at -= weight;
    if (at < 0) return token;
  }
  return candidates_.back().second;
}

Result<SampledToken> Sampler::next(std::span<float> logits) {
  SampledToken out;
  std::vector<float> raw;
  const bool logprobs = options_.top_logprobs >= 0;
  const bool changed = !options_.logit_bias.empty() || options_.repetition_penalty != 1 ||
                       options_.presence_penalty != 0 || options_.frequency_penalty != 0 || constraint_ ||
                       options_.min_tokens > 0 || options_.ignore_end;
  if (logprobs && changed) raw.assign(logits.begin(), logits.end());
  penalise(logits);
  TAILOR_CHECK(constrain(logits));
  forbid_ends(logits);
  const std::int32_t token = draw(logits);
  if (changed && !(logits[static_cast<std::size_t>(token)] > kNever)) {
    return Error{ErrorCode::kInvalidArgument, "no token may follow: bias or constraint forbid all of them",
                 "loosen logit_bias or the response format"};
  }
  out.token = token;
  if (logprobs) out = read_logprobs(raw.empty() ? logits : std::span<const float>(raw), token, options_.top_logprobs);
  if (constraint_) TAILOR_CHECK(constraint_->accept(token));
  ++in_answer_[token];
  ++drawn_;
  return out;
}

}  // namespace tailor
