#include "serve/http_shared.h"

namespace tailor {

bool HttpShared::enter(const HttpPeer& peer) {
  const std::lock_guard lock(mutex_);
  if (connections_ >= limits.connections) {
    count(metrics->refused_connections);
    return false;
  }
  if (!peer.unix_socket) {
    std::size_t& of_address = by_address_[peer.key];
    if (of_address >= limits.connections_per_address) {
      count(metrics->refused_addresses);
      return false;
    }
    ++of_address;
  }
  ++connections_;
  count(metrics->accepted);
  count(metrics->open_connections);
  return true;
}

void HttpShared::leave(const HttpPeer& peer) {
  const std::lock_guard lock(mutex_);
  metrics->open_connections.fetch_sub(1, std::memory_order_relaxed);
  if (const auto found = by_address_.find(peer.key); found != by_address_.end() && --found->second == 0) {
    by_address_.erase(found);
  }
  if (--connections_ == 0) left_.notify_all();
}

bool HttpShared::wait_empty(std::chrono::milliseconds timeout) {
  std::unique_lock lock(mutex_);
  return left_.wait_for(lock, timeout, [&] { return connections_ == 0; });
}

void HttpShared::drain() {
  const std::lock_guard lock(mutex_);
  draining_ = true;
}

bool HttpShared::begin_request() {
  const std::lock_guard lock(mutex_);
  if (draining_) return false;
  ++requests_;
  return true;
}

void HttpShared::end_request() {
  const std::lock_guard lock(mutex_);
  if (--requests_ == 0) left_.notify_all();
}

bool HttpShared::wait_answered(std::chrono::milliseconds timeout) {
  std::unique_lock lock(mutex_);
  return left_.wait_for(lock, timeout, [&] { return requests_ == 0; });
}

}  // namespace tailor
