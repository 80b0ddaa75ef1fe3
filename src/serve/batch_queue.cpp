#include "serve/batch_queue.h"

#include <algorithm>

namespace tailor {
namespace {

double work_left(const WaitingTexts& request) {
  double out = 0;
  for (std::size_t i = request.taken; i < request.bytes.size(); ++i)
    out += static_cast<double>(text_work(request.bytes[i]));
  return out;
}

std::size_t items_left(const WaitingTexts& request) {
  return request.bytes.size() - request.taken;
}

/// Takes the request's next text; `batch` has one piece of it at most, near the end where clients are few.
void add_text(std::vector<BatchPiece>& batch, const std::shared_ptr<WaitingTexts>& request) {
  const auto piece = std::find_if(batch.rbegin(), batch.rend(), [&](const auto& p) { return p.request == request; });
  if (piece == batch.rend())
    batch.push_back({request, request->taken, 1});
  else
    ++piece->count;
}

}  // namespace

bool BatchQueue::is_full_for(const std::string& name, std::size_t items) const {
  if (items_ + items <= most_items_) return false;
  if (items_ + items > 2 * most_items_) return true;
  const auto client = clients_.find(name);
  const std::size_t has = client == clients_.end() ? 0 : client->second.items;
  std::size_t parts = has > 0 ? 0 : 1;
  for (const auto& [other, held] : clients_) parts += held.items > 0 ? 1 : 0;
  return has + items > most_items_ / parts;
}

void BatchQueue::push(std::shared_ptr<WaitingTexts> request) {
  Client& client = clients_[request->client];
  if (client.requests.empty()) client.served = std::max(client.served, now_served_);
  client.items += items_left(*request);
  client.work += work_left(*request);
  items_ += items_left(*request);
  ++requests_;
  client.requests.push_back(std::move(request));
}

BatchQueue::Client* BatchQueue::next() {
  Client* best = nullptr;
  for (auto& [name, client] : clients_) {
    if (!client.requests.empty() && (best == nullptr || client.served < best->served)) best = &client;
  }
  return best;
}

void BatchQueue::take_one(Client& client) {
  WaitingTexts& request = *client.requests.front();
  const auto work = static_cast<double>(text_work(request.bytes[request.taken]));
  now_served_ = std::max(now_served_, client.served);
  client.served += work;
  client.work -= work;
  --client.items;
  --items_;
  if (++request.taken < request.bytes.size()) return;
  client.requests.pop_front();
  --requests_;
}

/// One that was given more than the others keeps that in mind when it comes again.
void BatchQueue::forget_idle() {
  std::erase_if(clients_, [&](const auto& c) { return c.second.requests.empty() && c.second.served <= now_served_; });
}

std::vector<BatchPiece> BatchQueue::take(std::size_t most_items, std::size_t most_bytes) {
  std::vector<BatchPiece> out;
  std::size_t items = 0, bytes = 0;
  while (items < most_items) {
    Client* const client = next();
    if (client == nullptr) break;
    const std::shared_ptr<WaitingTexts> request = client->requests.front();
    bytes += request->bytes[request->taken];
    if (items > 0 && bytes > most_bytes) break;
    add_text(out, request);
    take_one(*client);
    ++items;
  }
  forget_idle();
  return out;
}

void BatchQueue::remove(const WaitingTexts& request) {
  const auto found = clients_.find(request.client);
  if (found == clients_.end()) return;
  Client& client = found->second;
  const auto at = std::find_if(client.requests.begin(), client.requests.end(),
                               [&](const auto& waiting) { return waiting.get() == &request; });
  if (at == client.requests.end()) return;
  client.items -= items_left(request);
  client.work -= work_left(request);
  items_ -= items_left(request);
  --requests_;
  client.requests.erase(at);
  forget_idle();
}

std::vector<std::shared_ptr<WaitingTexts>> BatchQueue::take_expired(SteadyTime now) {
  std::vector<std::shared_ptr<WaitingTexts>> out;
  for (const auto& [name, client] : clients_) {
    for (const auto& request : client.requests) {
      if (request->deadline && now >= *request->deadline) out.push_back(request);
    }
  }
  for (const auto& request : out) remove(*request);
  return out;
}

std::vector<std::shared_ptr<WaitingTexts>> BatchQueue::take_all() {
  std::vector<std::shared_ptr<WaitingTexts>> out;
  for (auto& [name, client] : clients_) out.insert(out.end(), client.requests.begin(), client.requests.end());
  clients_.clear();
  items_ = requests_ = 0;
  return out;
}

WorkAhead BatchQueue::ahead_of(const std::string& name) const {
  const auto client = clients_.find(name);
  WorkAhead out;
  double turn = now_served_;  // virtual time at which it would begin
  if (client != clients_.end()) {
    out.own = out.all = client->second.work;
    turn = std::max(turn, client->second.served) + out.own;
  }
  for (const auto& [other, held] : clients_) {
    if (other != name) out.all += std::clamp(turn - held.served, 0.0, held.work);
  }
  return out;
}

}  // namespace tailor
