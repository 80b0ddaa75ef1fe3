#pragma once
/// Requests answered together: what waits when the last batch is done becomes the next one, by turns of the clients
/// (serve/batch_queue.h). Clients that were answered together ask again together, so that batch waits for as many
/// requests as the last one had, for at most a twentieth of the time that it took.

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
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
#include "infer/engine.h"
#include "serve/batch_queue.h"

namespace tailor {

template <typename Answers>
struct Batched {
  Answers rows;                 // of the request's items, in order
  double waited_s = 0;          // before its first batch began
  double computed_s = 0;        // of the whole batch, or of all that it was spread over
  std::size_t batch_items = 0;  // of its last one
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
  std::size_t batch_items = 256;                     // a batch; larger requests are spread over several
  std::size_t batch_bytes = std::size_t{256} << 10;  // the same, of texts
  std::size_t queue_items = 8192;                    // waiting; more are refused
  std::chrono::milliseconds waiting_time{30'000};    // what waits may take, as measured; more is refused
  std::chrono::microseconds gathering_time{2'000};   // at most, for the others of the last batch
  std::function<SteadyTime()> clock;                 // empty: the machine's
};

/// Who asks a batcher.
struct BatchedFor {
  std::string client;                  // whom it is accounted to
  std::optional<SteadyTime> deadline;  // what waits longer ends with kCancelled
  std::function<bool()> gone;          // true when its turn comes: dropped without an answer
};

/// What an item counts for batch_bytes. Other types have one of their own beside them.
inline std::size_t bytes_of(const std::string& text) {
  return text.size();
}

/// Answers [first, first + n) of a batch; each is taken once. append() puts them behind those of the batches before.
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

inline void append(Matrix& all, Matrix part) {
  if (all.rows == 0) {
    all = std::move(part);
    return;
  }
  all.rows += part.rows;
  all.data.insert(all.data.end(), part.data.begin(), part.data.end());
}
template <typename T>
void append(std::vector<T>& all, std::vector<T> part) {
  all.insert(all.end(), std::make_move_iterator(part.begin()), std::make_move_iterator(part.end()));
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
        queue_(options_.queue_items),
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
    for (const auto& request : queue_.take_all())
      of(request).done(Error{ErrorCode::kCancelled, "the model was removed before the answer", ""});
  }

  /// Errors: no items, and those of refusal().
  Status submit(std::vector<Item> items, Done done, BatchedFor caller = {}) {
    if (items.empty()) return Error{ErrorCode::kInvalidArgument, "there are no texts to compute", ""};
    auto request = std::make_shared<Request>();
    request->client = std::move(caller.client);
    request->deadline = caller.deadline;
    for (const Item& item : items) request->bytes.push_back(bytes_of(item));
    request->items = std::move(items);
    request->done = std::move(done);
    request->gone = std::move(caller.gone);
    {
      const std::lock_guard lock(mutex_);
      TAILOR_CHECK(refusal_now(request->client, request->items.size()));
      request->since = options_.clock();
      queue_.push(std::move(request));
    }
    changed_.notify_one();
    return {};
  }
  /// kUnavailable: too much waits for so many items of `client` to come in now.
  Status refusal(const std::string& client, std::size_t items) const {
    const std::lock_guard lock(mutex_);
    return refusal_now(client, items);
  }
  std::size_t waiting() const {  ///< items
    const std::lock_guard lock(mutex_);
    return queue_.items();
  }
  BatcherLoad load() const {
    const std::lock_guard lock(mutex_);
    return {running_, queue_.requests(), queue_.items(), due_};
  }
  /// Of a request that comes now; its tokens are bytes.
  ExpectedWait expected_wait(const std::string& client = {}) const {
    const std::lock_guard lock(mutex_);
    return wait_now(client);
  }
  const BatcherOptions& options() const { return options_; }

 private:
  struct Request final : WaitingTexts {
    std::vector<Item> items;
    Done done;
    std::function<bool()> gone;
    Answers answers{};  // of what was computed
    double waited_s = 0, computed_s = 0;
  };
  static Request& of(const std::shared_ptr<WaitingTexts>& request) { return static_cast<Request&>(*request); }

  static constexpr int kGatheringShare = 20;
  // Where a language model answers, a slow machine needs about a second for a text, and for so many bytes of it.
  static constexpr std::chrono::seconds kLongestBatch{60};
  static constexpr std::size_t kBytesASecond = 256;

  static double seconds(SteadyTime::duration span) { return std::chrono::duration<double>(span).count(); }
  static BatcherOptions with_clock(BatcherOptions options) {
    if (!options.clock) options.clock = [] { return std::chrono::steady_clock::now(); };
    return options;
  }
  ExpectedWait wait_now(const std::string& client) const {  // under mutex_
    const auto rate = drain_.per_second();
    if (!rate) return {};
    const WorkAhead ahead = queue_.ahead_of(client);
    return {ahead.all / *rate, ahead.own / *rate, *rate};
  }
  Status refusal_now(const std::string& client, std::size_t items) const {  // under mutex_
    if (queue_.is_full_for(client, items))
      return Error{ErrorCode::kUnavailable, fmt::format("the queue is full: {} texts wait", queue_.items()),
                   "try again later"};
    if (const double wait = wait_now(client).seconds;
        wait > std::chrono::duration<double>(options_.waiting_time).count())
      return Error{
          ErrorCode::kUnavailable,
          fmt::format("the server is overloaded: {} texts wait, which takes about {:.0f} s", queue_.items(), wait),
          "try again later"};
    return {};
  }

  void run() {
    double done = 0;              // work of the last batch
    std::size_t last = 0;         // requests that it answered
    SteadyTime::duration took{};  // its time
    for (;;) {
      std::vector<BatchPiece> batch;
      std::vector<std::shared_ptr<WaitingTexts>> late;
      {
        std::unique_lock lock(mutex_);
        drain_.advance(std::exchange(done, 0), queue_.items() > 0, options_.clock());
        changed_.wait(lock, [&] { return stopping_ || queue_.items() > 0; });
        if (last > 1) {
          const auto most = std::min<SteadyTime::duration>(options_.gathering_time, took / kGatheringShare);
          const auto gathered = [&] { return queue_.requests() >= last || queue_.items() >= options_.batch_items; };
          changed_.wait_for(lock, most, [&] { return stopping_ || gathered(); });
        }
        if (stopping_) return;
        late = queue_.take_expired(options_.clock());
        batch = queue_.take(options_.batch_items, options_.batch_bytes);
      }
      for (const auto& request : late) fail(request, too_late());
      for (const BatchPiece& piece : batch) {
        for (std::size_t i = 0; i < piece.count; ++i)
          done += static_cast<double>(text_work(piece.request->bytes[piece.first + i]));
      }
      std::erase_if(batch, [&](const BatchPiece& piece) { return leave_out_if_gone(piece.request); });
      last = static_cast<std::size_t>(std::count_if(batch.begin(), batch.end(), is_complete));
      if (!batch.empty()) took = compute(batch);
    }
  }

  static bool is_complete(const BatchPiece& piece) { return piece.first + piece.count == piece.request->bytes.size(); }
  static Error too_late() {  // as infer/engine_lane.cpp has it
    return {ErrorCode::kCancelled, "the request took longer than its time-out",
            "ask for fewer texts, or allow more time"};
  }
  void fail(const std::shared_ptr<WaitingTexts>& request, const Error& error) {
    remove(*request);
    of(request).done(error);
  }
  bool leave_out_if_gone(const std::shared_ptr<WaitingTexts>& request) {
    const auto& gone = of(request).gone;
    if (!gone || !gone()) return false;
    remove(*request);
    return true;
  }
  void remove(const WaitingTexts& request) {
    const std::lock_guard lock(mutex_);
    queue_.remove(request);
  }

  Result<Answers> compute_items(const std::vector<Item>& items) {
    try {
      ComputeShare::Busy busy(*share_);
      busy.set(true);
      const ComputeShare::Turn turn(*share_);
      return compute_(items);
    } catch (const std::exception& e) {
      return Error{ErrorCode::kInternal, fmt::format("the batch failed: {}", e.what()), ""};
    }
  }

  /// Returns the time that the batch took.
  SteadyTime::duration compute(const std::vector<BatchPiece>& batch) {
    std::vector<Item> items;
    for (const BatchPiece& piece : batch) {
      const auto first = of(piece.request).items.begin() + static_cast<std::ptrdiff_t>(piece.first);
      std::move(first, first + static_cast<std::ptrdiff_t>(piece.count), std::back_inserter(items));
    }
    const SteadyTime begin = options_.clock();
    begins(batch, begin);
    Result<Answers> all = compute_items(items);
    const SteadyTime end = options_.clock();
    ends();
    std::size_t first = 0;
    for (const BatchPiece& piece : batch) {
      Request& request = of(piece.request);
      if (!all.has_value()) {
        fail(piece.request, all.error());
        continue;
      }
      append(request.answers, part_of(*all, first, piece.count));
      first += piece.count;
      if (piece.first == 0) request.waited_s = seconds(begin - request.since);
      request.computed_s += seconds(end - begin);
      if (is_complete(piece))
        request.done(Batched<Answers>{std::move(request.answers), request.waited_s, request.computed_s, items.size()});
    }
    return end - begin;
  }

  void begins(const std::vector<BatchPiece>& batch, SteadyTime at) {
    std::size_t items = 0, bytes = 0;
    for (const BatchPiece& piece : batch) {
      items += piece.count;
      for (std::size_t i = 0; i < piece.count; ++i) bytes += piece.request->bytes[piece.first + i];
    }
    const std::lock_guard lock(mutex_);
    running_ = batch.size();
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
  BatchQueue queue_;
  std::size_t running_ = 0;        // requests of the batch that is computed
  std::optional<SteadyTime> due_;  // see BatcherLoad
  DrainRate drain_;                // of work
  bool stopping_ = false;
  std::thread thread_;
};

/// Texts to vectors.
using TextBatcher = Batcher<std::string, Matrix>;
using BatchedRows = Batched<Matrix>;

}  // namespace tailor
