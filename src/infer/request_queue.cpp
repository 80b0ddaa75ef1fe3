#include "infer/request_queue.h"

#include <fmt/format.h>

#include <algorithm>

namespace tailor {

Status RequestQueue::push(QueuedRequest request, SteadyTime now) {
  if (size() >= limits_.requests || tokens_ + request.tokens > limits_.tokens) {
    return Error{ErrorCode::kUnavailable,
                 fmt::format("the queue is full: {} request(s) with about {} tokens wait", size(), tokens_),
                 "try again later"};
  }
  request.since = now;
  Client& client = clients_[request.client];
  if (client.requests.empty()) client.served = std::max(client.served, now_served_);
  tokens_ += request.tokens;
  where_[request.id] = request.client;
  client.requests.push_back(std::move(request));
  return {};
}

void RequestQueue::push_front(QueuedRequest request) {
  Client& client = clients_[request.client];
  if (client.requests.empty()) client.served = std::max(client.served, now_served_);
  tokens_ += request.tokens;
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
  requests.erase(at);
  where_.erase(where);
  // One that was given more than the others keeps that in mind when it comes again.
  if (requests.empty() && client->second.served <= now_served_) clients_.erase(client);
}

std::optional<QueuedRequest> RequestQueue::take(const std::function<bool(const QueuedRequest&)>& fits, SteadyTime now) {
  const QueuedRequest* best = nullptr;
  Client* owner = nullptr;
  long best_priority = 0;
  for (auto& [name, client] : clients_) {
    for (const QueuedRequest& request : client.requests) {
      const long risen = limits_.rise_after.count() > 0 ? (now - request.since) / limits_.rise_after : 0;
      const long priority = request.priority + risen;
      // Of one client the first of the highest priority; of several, the one that was given less.
      const bool better = best == nullptr || priority > best_priority ||
                          (priority == best_priority && owner != &client && client.served < owner->served);
      if (!better || !fits(request)) continue;
      best = &request;
      owner = &client;
      best_priority = priority;
    }
  }
  if (best == nullptr) return std::nullopt;
  QueuedRequest out = *best;
  now_served_ = std::max(now_served_, owner->served);
  owner->served += static_cast<double>(out.tokens);
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

void RequestQueue::for_each(const std::function<void(const QueuedRequest&)>& visit) const {
  for (const auto& [name, client] : clients_) {
    for (const QueuedRequest& request : client.requests) visit(request);
  }
}

}  // namespace tailor
