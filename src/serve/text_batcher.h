#pragma once
/// Requests with texts, answered together: whatever waits when the last batch is done becomes the next one.

#include <chrono>
#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "core/matrix.h"
#include "core/result.h"
#include "infer/compute_share.h"
#include "infer/drain_rate.h"

namespace tailor {

struct BatchedRows {
  Matrix rows;                // of the request's texts, in order
  double waited_s = 0;        // before the batch began
  double computed_s = 0;      // of the whole batch
  std::size_t batch_texts = 0;
};

struct TextBatcherOptions {
  std::size_t batch_texts = 256;   // a batch; a request is never split
  std::size_t queue_texts = 8192;  // waiting; more are refused
  std::chrono::milliseconds waiting_time{30'000};  // what waits may take, as measured; more is refused
  std::function<SteadyTime()> clock;               // empty: the machine's
};

/// Threads: submit() from any; `compute` runs on a thread of this object, one batch at a time.
class TextBatcher {
 public:
  using Compute = std::function<Result<Matrix>(std::span<const std::string> texts)>;  // a row a text
  using Done = std::function<void(Result<BatchedRows>)>;  // on the batcher's thread; must not block

  TextBatcher(Compute compute, std::shared_ptr<ComputeShare> share, TextBatcherOptions options = {});
  TextBatcher(const TextBatcher&) = delete;
  TextBatcher& operator=(const TextBatcher&) = delete;
  ~TextBatcher();  // answers what waits with kCancelled

  /// kUnavailable: too much waits. `gone` true when its turn comes: dropped without an answer.
  Status submit(std::vector<std::string> texts, Done done, std::function<bool()> gone = {});
  std::size_t waiting() const;
  double expected_wait() const;  ///< seconds for what waits now; 0: nothing does, or nobody knows

 private:
  struct Item {
    std::vector<std::string> texts;
    Done done;
    std::function<bool()> gone;
    SteadyTime since;
    std::size_t bytes = 0;
  };
  void run();
  double wait_seconds() const;  // under mutex_
  void answer(std::vector<Item>& items);

  Compute compute_;
  std::shared_ptr<ComputeShare> share_;
  TextBatcherOptions options_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Item> queue_;
  std::size_t waiting_ = 0;
  std::size_t waiting_bytes_ = 0;
  DrainRate drain_;  // of bytes
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace tailor
