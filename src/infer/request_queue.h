#pragma once
/// Requests that wait to be computed: who is next, and who is turned away.
///
/// Higher priorities first; of one priority the client that has been given the fewest tokens (start-time fair queueing,
/// Goyal et al., 1996), so that a client with a thousand requests delays nobody else; of one client in the order of
/// coming. A priority of which something has waited long rises by one, so that none starves; among requests of one
/// priority only the shares count, however long a flood of one client has waited.

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <list>
#include <map>
#include <optional>
#include <string>
#include <unordered_map>

#include "core/cancel.h"
#include "core/result.h"

namespace tailor {

struct QueueLimits {
  std::size_t requests = 1024;
  std::uint64_t tokens = 4'000'000;                // prompts and answers together, as estimated
  std::chrono::milliseconds rise_after{10'000};    // after each such while a priority counts as one higher
  std::chrono::milliseconds waiting_time{30'000};  // expected; the queue does not refuse by it, who asks it does
};

struct QueuedRequest {
  std::int64_t id = 0;
  std::string client;        // whom it is accounted to
  int priority = 0;          // higher first
  std::uint64_t tokens = 1;  // estimated work
  std::int64_t group = 0;    // an adapter: what can be computed together
  SteadyTime since;          // set by push()
};

/// Tokens that are given out before the turn of a request that comes now, if nothing comes after it.
struct WorkAhead {
  double own = 0;  // of its own client
  double all = 0;
};

/// Threads: one at a time.
class RequestQueue {
 public:
  explicit RequestQueue(QueueLimits limits = {}) : limits_(limits) {}

  /// kUnavailable: the queue is full. A client that has less than its part of the bounds waiting gets in all the same,
  /// so that one client fills the queue for itself alone; more than twice the bounds never wait.
  Status push(QueuedRequest request, SteadyTime now);
  /// Back at the head of its client's requests; never refused.
  void push_front(QueuedRequest request);
  void remove(std::int64_t id);
  /// The next one that `fits`; it leaves the queue and its tokens are accounted to its client.
  std::optional<QueuedRequest> take(const std::function<bool(const QueuedRequest&)>& fits, SteadyTime now);
  /// The oldest one that `fits`; it stays.
  const QueuedRequest* oldest(const std::function<bool(const QueuedRequest&)>& fits) const;
  void for_each(const std::function<void(const QueuedRequest&)>& visit) const;
  /// Of what waits and `counts`: all of higher priorities; of the same one what its client has waiting, and of each
  /// other client as much as that one may be given until then by its share. What rises meanwhile is left out.
  WorkAhead ahead_of(const std::string& client, int priority,
                     const std::function<bool(const QueuedRequest&)>& counts) const;

  std::size_t size() const { return where_.size(); }
  std::uint64_t tokens() const { return tokens_; }
  const QueueLimits& limits() const { return limits_; }

 private:
  bool is_full_for(const std::string& name, std::uint64_t tokens) const;
  struct Client {
    std::list<QueuedRequest> requests;
    std::uint64_t tokens = 0;  // of these
    double served = 0;         // virtual time: tokens given so far
  };
  QueueLimits limits_;
  std::map<std::string, Client> clients_;  // those that wait, or were given more than others
  std::unordered_map<std::int64_t, std::string> where_;
  double now_served_ = 0;  // what a client that comes anew starts with
  std::uint64_t tokens_ = 0;
};

}  // namespace tailor
