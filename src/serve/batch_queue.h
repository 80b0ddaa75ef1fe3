#pragma once
/// Texts that wait to be computed together: whose are next, and who is turned away.
///
/// One text after the other, of the client that has been given the least (start-time fair queueing, Goyal et al.,
/// 1996); of one client in the order of coming. A request may be spread over several batches, so that one of a thousand
/// texts keeps nobody waiting for longer than a batch takes.

#include <cstddef>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/cancel.h"
#include "infer/request_queue.h"

namespace tailor {

/// The texts of one request.
struct WaitingTexts {
  std::string client;              // whom they are accounted to
  std::vector<std::size_t> bytes;  // of each; at least one
  SteadyTime since;
  std::optional<SteadyTime> deadline;
  std::size_t taken = 0;  // the first so many have left the queue

  WaitingTexts() = default;
  WaitingTexts(const WaitingTexts&) = delete;
  WaitingTexts& operator=(const WaitingTexts&) = delete;
  virtual ~WaitingTexts() = default;
};

/// Texts [first, first + count) of a request, in a batch.
struct BatchPiece {
  std::shared_ptr<WaitingTexts> request;
  std::size_t first = 0, count = 0;
};

/// What a text counts as work: an empty one takes time too.
inline std::size_t text_work(std::size_t bytes) {
  return bytes + 1;
}

/// Threads: one at a time.
class BatchQueue {
 public:
  /// `most_items`: of all clients; see is_full_for().
  explicit BatchQueue(std::size_t most_items) : most_items_(most_items) {}

  /// Whether so many texts more are too many. A client that has less than its part of the bound waiting gets in all the
  /// same, so that one client fills the queue for itself alone; more than twice the bound never wait.
  bool is_full_for(const std::string& client, std::size_t items) const;
  void push(std::shared_ptr<WaitingTexts> request);
  /// The next batch: at most so many texts and bytes, but at least one text where one waits. One piece a request.
  std::vector<BatchPiece> take(std::size_t most_items, std::size_t most_bytes);
  /// What is left of a request, if anything is.
  void remove(const WaitingTexts& request);
  std::vector<std::shared_ptr<WaitingTexts>> take_expired(SteadyTime now);
  std::vector<std::shared_ptr<WaitingTexts>> take_all();

  /// Work that is given out before the turn of a text of `client` that comes now, if nothing comes after it.
  WorkAhead ahead_of(const std::string& client) const;
  std::size_t items() const { return items_; }
  std::size_t requests() const { return requests_; }

 private:
  struct Client {
    std::deque<std::shared_ptr<WaitingTexts>> requests;
    std::size_t items = 0;  // of these
    double work = 0;
    double served = 0;  // virtual time: work given so far
  };
  Client* next();
  void take_one(Client& client);
  void forget_idle();

  std::size_t most_items_, items_ = 0, requests_ = 0;
  std::map<std::string, Client> clients_;  // those that wait, or were given more than others
  double now_served_ = 0;                  // what a client that comes anew starts with
};

}  // namespace tailor
