#include "infer/lane_beginnings.h"

#include <algorithm>
#include <iterator>
#include <utility>

namespace tailor {
namespace {

constexpr std::size_t kLeastShared = 16;   // a shorter beginning is computed faster than it is found
constexpr std::size_t kWorthCopying = 64;  // tokens by which a copy must be longer than what is here
constexpr std::size_t kWorthKeeping = 64;
constexpr std::size_t kCachedCells = 2048;  // a lane keeps for those to come; more make every step slower

}  // namespace

Status LaneBeginnings::begin(EngineJob& job) {
  job.computed = job.cached = 0;
  while (!memory_.has_sequence()) {
    if (!evict_one()) return Error{ErrorCode::kInternal, "no place for another answer in the key-value cache", ""};
  }
  job.sequence = memory_.add_sequence();
  return find(job);
}

Status LaneBeginnings::begin_with_soft_prompt(EngineJob& job) {
  const std::size_t soft = job.adapter->soft_tokens;
  if (soft == 0) return {};
  TAILOR_TRY(const bool room, make_room(soft));
  const SequenceBytes& bytes = job.beyond ? job.adapter->soft_beyond : job.adapter->soft;
  if (room && memory_.restore(*bytes, soft, soft, job.sequence)) return {};
  return Error{ErrorCode::kOutOfMemory, "no room for the soft prompt in the key-value cache",
               "give the cache more memory"};
}

std::optional<LaneBeginnings::Source> LaneBeginnings::source(std::int64_t entry, std::size_t tokens) const {
  if (const auto job = jobs_.find(entry); job != jobs_.end()) {
    const EngineJob& from = *job->second;
    return Source{&from.sequence, &from.space, &from.tokens, from.adapter->soft_tokens};
  }
  const auto cached = std::find_if(cached_.begin(), cached_.end(), [&](const Cached& c) { return c.entry == entry; });
  if (cached == cached_.end() || cached->tokens.size() < tokens) return std::nullopt;
  return Source{&cached->sequence, &cached->space, &cached->tokens,
                cached->sequence.cells.size() - cached->tokens.size()};
}

Status LaneBeginnings::find(EngineJob& job) {
  job.awaited = -1;
  job.importing = false;
  if (job.alone || !job.request->use_cache) return begin_with_soft_prompt(job);
  const KeptPrefixes::Match kept = choose(job);
  if (job.awaited >= 0) return look_again(job);
  if (job.importing) return {};
  const std::size_t soft = job.adapter->soft_tokens;
  if (kept.bytes) {
    TAILOR_TRY(const bool room, make_room(soft + kept.tokens));
    if (room && memory_.restore(*kept.bytes, soft + kept.tokens, soft + kept.length, job.sequence)) {
      job.computed = job.cached = kept.length;
      return {};
    }
  }
  return begin_with_soft_prompt(job);
}

/// Makes the job an entry, and says in it what it waits for, if anything; else the bytes to begin with, if any.
KeptPrefixes::Match LaneBeginnings::choose(EngineJob& job) {
  // The last token is computed in any case: what follows it is asked for.
  std::size_t least_computed = 1;
  if (job.request->prompt_logprobs >= 0 && job.request->logprobs_from < job.prompt_size())
    least_computed = job.tokens.size() + 1 - job.first_scored();
  const auto wanted = PrefixTree::Tokens(job.tokens).first(job.tokens.size() - least_computed);
  const std::lock_guard lock(shared_.mutex);
  const auto in_lanes = [&](bool mine) {
    return shared_.tree.longest(job.space, wanted, [&, mine](std::int64_t entry) {
      const KnownEntry& known = shared_.entries.at(entry);
      return (known.home == this) == mine && !known.awaits;
    });
  };
  const PrefixTree::Match here = in_lanes(true), there = in_lanes(false);
  KeptPrefixes::Match kept = shared_.kept.longest(job.space, wanted);
  if (job.entry < 0) job.entry = shared_.next_entry++;
  const std::size_t copied = std::max(kept.length, there.length);
  if (here.length >= kLeastShared && here.length + kWorthCopying >= copied) {
    kept = {};
    job.awaited = here.entry;
    job.awaited_tokens = here.length;
  } else if (there.length >= kWorthCopying && there.length >= kept.length + kWorthCopying) {
    kept = {};
    job.importing = true;
    shared_.entries.at(there.entry).home->orders_.push_back({there.entry, there.length, this, job.entry});
    shared_.changed.notify_all();
  } else if (kept.length < kWorthCopying) {
    kept = {};
  }
  shared_.tree.insert(job.space, job.tokens, job.entry);
  shared_.entries[job.entry] = {this, 0, job.awaited >= 0};
  jobs_[job.entry] = &job;
  return kept;
}

Status LaneBeginnings::look_again(EngineJob& job) {
  if (job.awaited < 0) return {};
  const auto from = source(job.awaited, job.awaited_tokens);
  if (!from) return find(job);  // it is gone
  const std::size_t positions = job.adapter->soft_tokens + job.awaited_tokens;
  if (from->sequence->cells.size() < positions) return {};
  memory_.share(*from->sequence, positions, job.sequence);
  job.computed = job.awaited_tokens;
  job.cached = std::min(job.computed, job.prompt_size());
  for (Cached& cached : cached_) {
    if (cached.entry == job.awaited) cached.used = ++clock_;
  }
  job.awaited = -1;
  const std::lock_guard lock(shared_.mutex);
  shared_.entries[job.entry] = {this, job.computed, false};
  return {};
}

void LaneBeginnings::keep(EngineJob& job) {
  if (job.entry < 0 || job.computed == 0) return drop(job);
  jobs_.erase(job.entry);
  job.tokens.resize(job.computed);
  remember({std::exchange(job.entry, -1), std::move(job.space), std::move(job.tokens), std::exchange(job.sequence, {}),
            ++clock_});
}

void LaneBeginnings::drop(EngineJob& job) {
  memory_.drop(job.sequence);
  job.computed = 0;
  job.awaited = -1;
  job.importing = false;
  if (job.entry < 0) return;
  jobs_.erase(job.entry);
  const std::lock_guard lock(shared_.mutex);
  shared_.forget(std::exchange(job.entry, -1));
}

void LaneBeginnings::remember(Cached cached) {
  std::vector<std::int64_t> shorter;
  {
    const std::lock_guard lock(shared_.mutex);
    shared_.tree.insert(cached.space, cached.tokens, cached.entry);
    shared_.entries[cached.entry] = {this, cached.tokens.size(), false};
    shorter = shared_.tree.beginnings_of(cached.entry);
  }
  // Where something cached here goes on from it, its cells stay there.
  const bool continued = std::any_of(cached_.begin(), cached_.end(), [&](const Cached& other) {
    return other.space == cached.space && other.tokens.size() >= cached.tokens.size() &&
           std::equal(cached.tokens.begin(), cached.tokens.end(), other.tokens.begin());
  });
  if (continued) return forget(cached);
  std::erase_if(cached_, [&](Cached& other) {
    if (std::find(shorter.begin(), shorter.end(), other.entry) == shorter.end()) return false;
    forget(other);
    return true;
  });
  cached_.push_back(std::move(cached));
  const auto kept_cells = [&] {
    std::size_t n = 0;
    for (const Cached& c : cached_) n += memory_.own(c.sequence);
    return n;
  };
  while (cached_.size() > 1 && kept_cells() > kCachedCells) evict_one();
}

void LaneBeginnings::forget(Cached& gone) {
  memory_.drop(gone.sequence);
  const std::lock_guard lock(shared_.mutex);
  shared_.forget(gone.entry);
}

bool LaneBeginnings::evict_one() {
  if (cached_.empty()) return false;
  const auto oldest = std::min_element(cached_.begin(), cached_.end(),
                                       [](const Cached& a, const Cached& b) { return a.used < b.used; });
  bool worth_keeping = oldest->tokens.size() >= kWorthKeeping;
  if (worth_keeping) {
    const std::lock_guard lock(shared_.mutex);
    worth_keeping = shared_.kept.max_bytes() > 0 && !shared_.tree.continued(oldest->entry) &&
                    !(shared_.gone && shared_.gone(oldest->space));
  }
  SequenceBytes bytes;
  if (worth_keeping) bytes = memory_.save(oldest->sequence, oldest->sequence.cells.size());
  forget(*oldest);
  if (bytes) {
    const std::lock_guard lock(shared_.mutex);
    shared_.kept.put(oldest->space, std::move(oldest->tokens), bytes);
  }
  cached_.erase(oldest);
  return true;
}

Result<bool> LaneBeginnings::make_room(std::size_t cells) {
  for (;;) {
    bool lost = false;
    const Result<bool> room = memory_.make_room(cells, lost);
    if (lost && room.has_value())
      throw Exception({ErrorCode::kInternal, "llama.cpp lost the key-value cache when it grew", ""});
    if (lost) throw Exception(room.error());
    if (!room.has_value() || *room) return room;
    if (!evict_one()) return false;
  }
}

void LaneBeginnings::collect() {
  pending_.insert(pending_.end(), orders_.begin(), orders_.end());
  orders_.clear();
  std::move(deliveries_.begin(), deliveries_.end(), std::back_inserter(arrived_));
  deliveries_.clear();
}

bool LaneBeginnings::may_go_on(const EngineJob& job) const {
  if (job.importing) return false;
  if (job.awaited < 0) return true;
  const auto from = shared_.entries.find(job.awaited);
  return from == shared_.entries.end() || from->second.computed >= job.awaited_tokens;
}

void LaneBeginnings::publish(const EngineJob& job) {
  if (const auto entry = shared_.entries.find(job.entry); entry != shared_.entries.end())
    entry->second.computed = job.computed;
}

void LaneBeginnings::take_deliveries(const std::function<void(EngineJob&, const Error&)>& fail) {
  for (const Delivery& delivery : std::exchange(arrived_, {})) {
    const auto found = jobs_.find(delivery.entry);
    if (found == jobs_.end() || !found->second->importing) continue;
    EngineJob& job = *found->second;
    job.importing = false;
    const std::size_t positions = job.adapter->soft_tokens + delivery.tokens;
    if (delivery.bytes) {
      const auto room = make_room(positions);
      if (room.has_value() && *room && memory_.restore(*delivery.bytes, positions, positions, job.sequence)) {
        job.computed = job.cached = delivery.tokens;
        continue;
      }
    }
    if (const Status status = begin_with_soft_prompt(job); !status.has_value()) fail(job, status.error());
  }
}

void LaneBeginnings::serve_orders() {
  std::vector<Order> later;
  for (const Order& order : pending_) {
    const auto from = source(order.entry, order.tokens);
    if (!from) {
      answer(order, nullptr);
    } else if (from->sequence->cells.size() < from->soft + order.tokens) {
      later.push_back(order);
    } else {
      SequenceBytes bytes = memory_.save(*from->sequence, from->soft + order.tokens);
      if (bytes) {
        const auto tokens = PrefixTree::Tokens(*from->tokens).first(order.tokens);
        const std::lock_guard lock(shared_.mutex);
        shared_.kept.put(*from->space, {tokens.begin(), tokens.end()}, bytes);
      }
      answer(order, std::move(bytes));
    }
  }
  pending_ = std::move(later);
}

void LaneBeginnings::answer(const Order& order, SequenceBytes bytes) {
  const std::lock_guard lock(shared_.mutex);
  order.to->deliveries_.push_back({order.to_entry, order.tokens, std::move(bytes)});
  shared_.changed.notify_all();
}

void LaneBeginnings::forget_all() {
  for (; !cached_.empty(); cached_.pop_back()) forget(cached_.back());
}

void LaneBeginnings::give_up() {
  forget_all();
  for (const Order& order : std::exchange(pending_, {})) answer(order, nullptr);
}

}  // namespace tailor
