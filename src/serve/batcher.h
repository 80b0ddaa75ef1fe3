#pragma once
/// Requests answered together: whatever waits when the last batch is done becomes the next one. Clients that were
/// answered together ask again together, so that batch waits for as many requests as the last one had, for at most
/// a twentieth of the time that it took.

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <functional>
#include <iterator>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "core/matrix.h"
#include "core/result.h"
#include "infer/compute_share.h"
#include "infer/drain_rate.h"

namespace tailor {

template <typename Answers>
struct Batched {
  Answers rows;           // of the request's items, in order
  double waited_s = 0;    // before the batch began
  double computed_s = 0;  // of the whole batch
  std::size_t batch_items = 0;
};

/// What a batcher has to do now.
struct BatcherLoad {
  std::size_t running = 0, waiting = 0;  // requests
  std::size_t items = 0;                 // of those that wait
  std::optional<SteadyTime> due;  // by when the batch that is computed ends, unless it has stopped; none: none is

  void add(const BatcherLoad& other) {
    running += other.running;
    waiting += other.waiting;
    items += other.items;
    if (other.due && (!due || *other.due < *due)) due = other.due;
  }
};

struct BatcherOptions {
  std::size_t batch_items = 256;                     // a batch; a request is never split
  std::size_t batch_bytes = std::size_t{256} << 10;  // the same, of texts
  std::size_t queue_items = 8192;                    // waiting; more are refused
  std::chrono::milliseconds waiting_time{30'000};    // what waits may take, as measured; more is refused
  std::chrono::microseconds gathering_time{2'000};   // at most, for the others of the last batch
  std::function<SteadyTime()> clock;                 // empty: the machine's
};

/// What an item counts for batch_bytes. Other types have one of their own beside them.
inline std::size_t bytes_of(const std::string& text) {
  return text.size();
}

/// Answers [first, first + n) of a batch; each is taken once.
inline Matrix part_of(Matrix& all, std::size_t first, std::size_t n) {
  Matrix out(n, all.cols);
  std::copy_n(all.data.begin() + static_cast<std::ptrdiff_t>(first * all.cols), n * all.cols, out.data.begin());
  return out;
}
template <typename T>
std::vector<T> part_of(std::vector<T>& all, std::size_t first, std::size_t n) {
  const auto begin = std::make_move_iterator(all.begin() + static_cast<std::ptrdiff_t>(first));
  return std::vector<T>(begin, begin + static_cast<std::ptrdiff_t>(n));
}

/// `Answers`: a Matrix with a row an item, or a vector with an element an item.
/// Threads: submit() from any; `compute` runs on a thread of this object, one batch at a time.
template <typename Item, typename Answers>
class Batcher {
 public:
  using Compute = std::function<Result<Answers>(std::span<const Item> items)>;
  using Done = std::function<void(Result<Batched<Answers>>)>;  // on the batcher's thread; must not block

  Batcher(Compute compute, std::shared_ptr<ComputeShare> share, BatcherOptions options = {})
      : compute_(std::move(compute)),
        share_(std::move(share)),
        options_(with_clock(std::move(options))),
        thread_([this] { run(); }) {}
  Batcher(const Batcher&) = delete;
  Batcher& operator=(const Batcher&) = delete;
  ~Batcher() {  // answers what waits with kCancelled
    {
      const std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    changed_.notify_all();
    thread_.join();
    for (Request& request : queue_)
      request.done(Error{ErrorCode::kCancelled, "the model was removed before the answer", ""});
  }

  /// kUnavailable: too much waits. `gone` true when its turn comes: dropped without an answer.
  Status submit(std::vector<Item> items, Done done, std::function<bool()> gone = {}) {
    std::size_t bytes = 0;
    for (const Item& item : items) bytes += bytes_of(item);
    const std::size_t counted = bytes + items.size();
    {
      const std::lock_guard lock(mutex_);
      if (waiting_ + items.size() > options_.queue_items)
        return Error{ErrorCode::kUnavailable, fmt::format("the queue is full: {} texts wait", waiting_),
                     "try again later"};
      if (const double wait = wait_seconds(); wait > std::chrono::duration<double>(options_.waiting_time).count()) {
        return Error{ErrorCode::kUnavailable,
                     fmt::format("the server is overloaded: {} texts wait, which takes about {:.0f} s", waiting_, wait),
                     "try again later"};
      }
      waiting_ += items.size();
      waiting_bytes_ += counted;
      queue_.push_back({std::move(items), bytes, std::move(done), std::move(gone), options_.clock()});
    }
    changed_.notify_one();
    return {};
  }
  std::size_t waiting() const {  ///< items
    const std::lock_guard lock(mutex_);
    return waiting_;
  }
  BatcherLoad load() const {
    const std::lock_guard lock(mutex_);
    return {running_, queue_.size(), waiting_, due_};
  }
  double expected_wait() const {  ///< seconds for what waits now; 0: nothing does, or nobody knows
    const std::lock_guard lock(mutex_);
    return wait_seconds();
  }

 private:
  struct Request {
    std::vector<Item> items;
    std::size_t bytes;
    Done done;
    std::function<bool()> gone;
    SteadyTime since;
    std::size_t counted() const { return bytes + items.size(); }  // an empty text takes time too
  };

  static constexpr int kGatheringShare = 20;
  // Where a language model answers, a slow machine needs about a second for a text, and for so many bytes of it.
  static constexpr std::chrono::seconds kLongestBatch{60};
  static constexpr std::size_t kBytesASecond = 256;

  static double seconds(SteadyTime from, SteadyTime to) { return std::chrono::duration<double>(to - from).count(); }
  static BatcherOptions with_clock(BatcherOptions options) {
    if (!options.clock) options.clock = [] { return std::chrono::steady_clock::now(); };
    return options;
  }
  double wait_seconds() const {  // under mutex_
    const auto rate = drain_.per_second();
    return rate ? static_cast<double>(waiting_bytes_) / *rate : 0;
  }

  void run() {
    double done = 0;              // bytes of the last batch
    std::size_t last = 0;         // its requests
    SteadyTime::duration took{};  // its time
    for (;;) {
      std::vector<Request> requests;
      {
        std::unique_lock lock(mutex_);
        drain_.advance(std::exchange(done, 0), !queue_.empty(), options_.clock());
        changed_.wait(lock, [&] { return stopping_ || !queue_.empty(); });
        if (last > 1) {
          const auto most = std::min<SteadyTime::duration>(options_.gathering_time, took / kGatheringShare);
          changed_.wait_for(lock, most, [&] { return stopping_ || queue_.size() >= last; });
        }
        if (stopping_) return;
        std::size_t items = 0, bytes = 0;
        while (!queue_.empty()) {
          const Request& next = queue_.front();
          const bool fits =
              items + next.items.size() <= options_.batch_items && bytes + next.bytes <= options_.batch_bytes;
          if (!requests.empty() && !fits) break;
          items += next.items.size();
          bytes += next.bytes;
          waiting_ -= next.items.size();
          waiting_bytes_ -= next.counted();
          done += static_cast<double>(next.counted());
          requests.push_back(std::move(queue_.front()));
          queue_.pop_front();
        }
      }
      std::erase_if(requests, [](const Request& request) { return request.gone && request.gone(); });
      last = requests.size();
      if (!requests.empty()) took = answer(requests);
    }
  }

  /// Returns the time that the batch took.
  SteadyTime::duration answer(std::vector<Request>& requests) {
    std::vector<Item> items;
    std::vector<std::size_t> counts;
    for (Request& request : requests) {
      counts.push_back(request.items.size());
      std::move(request.items.begin(), request.items.end(), std::back_inserter(items));
    }
    const SteadyTime begin = options_.clock();
    begins(requests, items.size(), begin);
    Result<Answers> all = Error{};
    try {
      ComputeShare::Busy busy(*share_);
      busy.set(true);
      const ComputeShare::Turn turn(*share_);
      all = compute_(items);
    } catch (const std::exception& e) {
      all = Error{ErrorCode::kInternal, fmt::format("the batch failed: {}", e.what()), ""};
    }
    const SteadyTime end = options_.clock();
    ends();
    std::size_t first = 0;
    for (std::size_t r = 0; r < requests.size(); ++r) {
      Request& request = requests[r];
      if (!all.has_value()) {
        request.done(all.error());
        continue;
      }
      request.done(Batched<Answers>{part_of(*all, first, counts[r]), seconds(request.since, begin), seconds(begin, end),
                                    items.size()});
      first += counts[r];
    }
    return end - begin;
  }

  void begins(const std::vector<Request>& requests, std::size_t items, SteadyTime at) {
    std::size_t bytes = 0;
    for (const Request& request : requests) bytes += request.bytes;
    const std::lock_guard lock(mutex_);
    running_ = requests.size();
    due_ = at + kLongestBatch + std::chrono::seconds(items + bytes / kBytesASecond);
  }
  void ends() {
    const std::lock_guard lock(mutex_);
    running_ = 0;
    due_.reset();
  }

  Compute compute_;
  std::shared_ptr<ComputeShare> share_;
  BatcherOptions options_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Request> queue_;
  std::size_t waiting_ = 0;
  std::size_t waiting_bytes_ = 0;
  std::size_t running_ = 0;        // requests of the batch that is computed
  std::optional<SteadyTime> due_;  // see BatcherLoad
  DrainRate drain_;                // of bytes
  bool stopping_ = false;
  std::thread thread_;
};

/// Texts to vectors.
using TextBatcher = Batcher<std::string, Matrix>;
using BatchedRows = Batched<Matrix>;

}  // namespace tailor
