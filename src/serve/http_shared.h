#pragma once
/// What all connections of one server share.

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <utility>

#include "serve/http_handler.h"
#include "serve/http_metrics.h"
#include "serve/http_options.h"

namespace tailor {

struct HttpPeer {
  bool unix_socket = false;
  std::string address;  // as in HttpHead; empty for a Unix socket
  std::string key;      // what connections_per_address counts: the address, of IPv6 its /64 network
};

/// Threads: all.
class HttpShared {
 public:
  HttpShared(const HttpServerOptions& options, HttpHandler& served)
      : limits(options.limits), timeouts(options.timeouts), hsts(options.hsts), handler(served) {}

  const HttpLimits limits;
  const HttpTimeouts timeouts;
  const std::chrono::seconds hsts;
  HttpHandler& handler;
  const std::shared_ptr<HttpMetrics> metrics = std::make_shared<HttpMetrics>();
  std::atomic<std::size_t> body_memory{0};

  /// A connection begins; false where it may not.
  bool enter(const HttpPeer& peer);
  void leave(const HttpPeer& peer);
  bool wait_empty(std::chrono::milliseconds timeout);

  /// From now on every answer says that its connection ends.
  void drain();
  bool draining() const { return draining_.load(std::memory_order_relaxed); }
  /// A request begins; true where it counts as one that a drain waits for, and end_request() has to be called: not
  /// while draining.
  bool begin_request();
  void end_request();
  bool wait_answered(std::chrono::milliseconds timeout);

 private:
  std::mutex mutex_;
  std::condition_variable left_;
  std::atomic<bool> draining_{false};  // written under mutex_
  std::size_t connections_ = 0;
  std::size_t requests_ = 0;  // that began before the drain
  std::unordered_map<std::string, std::size_t> by_address_;
};

/// A body's part of HttpShared::body_memory.
class BodyMemory {
 public:
  BodyMemory(std::shared_ptr<HttpShared> shared, std::size_t bytes) : shared_(std::move(shared)), bytes_(bytes) {}
  BodyMemory(const BodyMemory&) = delete;
  BodyMemory& operator=(const BodyMemory&) = delete;
  ~BodyMemory() { shared_->body_memory.fetch_sub(bytes_); }

 private:
  std::shared_ptr<HttpShared> shared_;
  std::size_t bytes_;
};

}  // namespace tailor
