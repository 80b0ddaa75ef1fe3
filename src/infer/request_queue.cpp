#include "infer/request_queue.h"

#include <fmt/format.h>

#include <algorithm>
#include <vector>

namespace tailor {

bool RequestQueue::is_full_for(const std::string& name, std::uint64_t tokens) const {
  if (where_.empty() || (size() < limits_.requests && tokens_ + tokens <= limits_.tokens)) return false;
  if (size() >= 2 * limits_.requests || tokens_ + tokens > 2 * limits_.tokens) return true;
  const auto client = clients_.find(name);
  const bool waits = client != clients_.end() && !client->second.requests.empty();
  std::size_t parts = waits ? 0 : 1;
  for (const auto& [other, held] : clients_) parts += held.requests.empty() ? 0 : 1;
  const std::size_t has = waits ? client->second.requests.size() : 0;
  const std::uint64_t has_tokens = waits ? client->second.tokens : 0;
  return has >= limits_.requests / parts || has_tokens + tokens > limits_.tokens / parts;
}

Status RequestQueue::push(QueuedRequest request, SteadyTime now) {
  if (is_full_for(request.client, request.tokens)) {
    return Error{ErrorCode::kUnavailable,
                 fmt::format("the queue is full: {} request(s) with about {} tokens wait", size(), tokens_),
                 "try again later"};
  }
  request.since = now;
  Client& client = clients_[request.client];
  if (client.requests.empty()) client.served = std::max(client.served, now_served_);
  tokens_ += request.tokens;
  client.tokens += request.tokens;
  where_[request.id] = request.client;
  client.requests.push_back(std::move(request));
  return {};
}

void RequestQueue::push_front(QueuedRequest request) {
  Client& client = clients_[request.client];
  if (client.requests.empty()) client.served = std::max(client.served, now_served_);
  tokens_ += request.tokens;
  client.tokens += request.tokens;
  where_[request.id] = request.client;
  client.requests.push_front(std::move(request));
}

void RequestQueue::remove(std::int64_t id) {
  const auto where = where_.find(id);
  if (where == where_.end()) return;
  const auto client = clients_.find(where->second);
  auto& requests = client->second.requests;
  const auto at = std::find_if(requests.begin(), requests.end(), [&](const QueuedRequest& r) { return r.id == id; });
  tokens_ -= at->tokens;
  client->second.tokens -= at->tokens;
  requests.erase(at);
  where_.erase(where);
  // One that was given more than the others keeps that in mind when it comes again.
  if (requests.empty() && client->second.served <= now_served_) clients_.erase(client);
}

std::optional<QueuedRequest> RequestQueue::take(const std::function<bool(const QueuedRequest&)>& fits, SteadyTime now) {
  struct Candidate {
    const QueuedRequest* request = nullptr;  // of the client that was given least
    Client* owner = nullptr;
    SteadyTime oldest = SteadyTime::max();
  };
  std::map<int, Candidate, std::greater<>> priorities;
  for (auto& [name, client] : clients_) {
    for (const QueuedRequest& request : client.requests) {
      Candidate& best = priorities[request.priority];
      const bool better = best.request == nullptr || (best.owner != &client && client.served < best.owner->served);
      if ((!better && request.since >= best.oldest) || !fits(request)) continue;
      best.oldest = std::min(best.oldest, request.since);
      if (!better) continue;
      best.request = &request;
      best.owner = &client;
    }
  }
  const Candidate* best = nullptr;
  long best_priority = 0;
  for (const auto& [priority, candidate] : priorities) {
    if (candidate.request == nullptr) continue;
    const long risen = limits_.rise_after.count() > 0 ? (now - candidate.oldest) / limits_.rise_after : 0;
    if (best != nullptr && priority + risen <= best_priority) continue;
    best = &candidate;
    best_priority = priority + risen;
  }
  if (best == nullptr) return std::nullopt;
  QueuedRequest out = *best->request;
  now_served_ = std::max(now_served_, best->owner->served);
  best->owner->served += static_cast<double>(out.tokens);
  remove(out.id);
  std::erase_if(clients_, [&](const auto& c) { return c.second.requests.empty() && c.second.served <= now_served_; });
  return out;
}

const QueuedRequest* RequestQueue::oldest(const std::function<bool(const QueuedRequest&)>& fits) const {
  const QueuedRequest* best = nullptr;
  for (const auto& [name, client] : clients_) {
    for (const QueuedRequest& request : client.requests) {
      if ((best == nullptr || request.since < best->since) && fits(request)) best = &request;
    }
  }
  return best;
}

WorkAhead RequestQueue::ahead_of(const std::string& client, int priority,
                                 const std::function<bool(const QueuedRequest&)>& counts) const {
  struct Waiting {
    double higher = 0, same = 0, served = 0;
  };
  std::vector<Waiting> others;
  Waiting own;
  own.served = now_served_;
  for (const auto& [name, known] : clients_) {
    Waiting held;
    held.served = known.served;
    for (const QueuedRequest& request : known.requests) {
      if (request.priority < priority || !counts(request)) continue;
      (request.priority > priority ? held.higher : held.same) += static_cast<double>(request.tokens);
    }
    if (name != client) {
      others.push_back(held);
      continue;
    }
    if (known.requests.empty()) held.served = std::max(held.served, now_served_);  // as push() has it
    own = held;
  }
  WorkAhead out{own.higher + own.same, own.higher + own.same};
  const double turn = own.served + own.same;  // virtual time at which it would begin
  for (const Waiting& other : others) out.all += other.higher + std::clamp(turn - other.served, 0.0, other.same);
  return out;
}

void RequestQueue::for_each(const std::function<void(const QueuedRequest&)>& visit) const {
  for (const auto& [name, client] : clients_) {
    for (const QueuedRequest& request : client.requests) visit(request);
  }
}

}  // namespace tailor
