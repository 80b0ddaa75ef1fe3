// Texts that wait together: one at a time, bounded by number and by time. The clock is the test's own.

#include "serve/batcher.h"

#include <gtest/gtest.h>

#include <atomic>
#include <future>

#include "model/test_support.h"

namespace tailor {
namespace {

/// Computes a batch when it is let, which takes a second on the test's clock.
struct Bench {
  Bench()
      : batcher([this](std::span<const std::string> texts) { return compute(texts); },
                std::make_shared<ComputeShare>(1),
                {.batch_items = 4, .queue_items = 20, .waiting_time = std::chrono::seconds(3), .clock = [this] {
                   return now();
                 }}) {}
  ~Bench() { let(1000); }

  SteadyTime now() {
    const std::lock_guard lock(mutex);
    return time;
  }
  Result<Matrix> compute(std::span<const std::string> texts) {
    std::unique_lock lock(mutex);
    ++begun;
    changed.notify_all();
    changed.wait(lock, [&] { return allowed > 0; });
    --allowed;
    time += std::chrono::seconds(1);
    return Matrix(texts.size(), 1);
  }
  void let(int batches) {
    const std::lock_guard lock(mutex);
    allowed += batches;
    changed.notify_all();
  }
  void wait_begun(int batches) {
    std::unique_lock lock(mutex);
    ASSERT_TRUE(changed.wait_for(lock, std::chrono::seconds(60), [&] { return begun >= batches; }));
  }
  /// One request of `n` texts of nine bytes (ten as they are counted).
  Status ask(std::size_t n, const std::string& client = {}) {
    return batcher.submit(std::vector<std::string>(n, "123456789"),
                          [this](const Result<BatchedRows>& rows) { answered += rows.has_value() ? 1 : 0; },
                          {.client = client});
  }

  std::mutex mutex;
  std::condition_variable changed;
  SteadyTime time;
  int allowed = 0, begun = 0;
  std::atomic<int> answered{0};
  TextBatcher batcher;  // last: ends first
};

TEST(BatcherWaits, RefusesWhatWouldWaitTooLong) {
  Bench bench;
  ASSERT_TRUE(bench.ask(4).has_value());
  bench.wait_begun(1);
  for (int i = 0; i < 4; ++i) ASSERT_TRUE(bench.ask(4).has_value());
  EXPECT_EQ(bench.batcher.expected_wait().seconds, 0) << "nobody knows yet how long they take";
  bench.let(2);  // the first is no measure: nothing waited when it began
  bench.wait_begun(3);
  // Four texts a second; eight wait.
  EXPECT_NEAR(bench.batcher.expected_wait().seconds, 2, 1e-6);
  ASSERT_TRUE(bench.ask(4).has_value());
  EXPECT_NEAR(bench.batcher.expected_wait().seconds, 3, 1e-6);
  ASSERT_TRUE(bench.ask(4).has_value());
  testing::expect_error(bench.ask(1), ErrorCode::kUnavailable, "16 texts wait, which takes about 4 s");
  bench.let(1);
  bench.wait_begun(4);
  EXPECT_TRUE(bench.ask(1).has_value()) << "a second later there is room";
}

TEST(BatcherWaits, AClientWaitsForItsOwnTextsAndNotForAnothersQueue) {
  Bench bench;
  ASSERT_TRUE(bench.ask(4, "one").has_value());
  bench.wait_begun(1);
  for (int i = 0; i < 4; ++i) ASSERT_TRUE(bench.ask(4, "one").has_value());
  bench.let(2);
  bench.wait_begun(3);
  EXPECT_NEAR(bench.batcher.expected_wait("one").seconds, 2, 1e-6);
  EXPECT_NEAR(bench.batcher.expected_wait("one").own_seconds, 2, 1e-6);
  EXPECT_EQ(bench.batcher.expected_wait("other").own_seconds, 0);
  EXPECT_LT(bench.batcher.expected_wait("other").seconds, 0.5);
  EXPECT_NEAR(bench.batcher.expected_wait("one").tokens_per_second, 40, 1e-6);
}

TEST(BatcherWaits, RefusesMoreThanItsNumberOfTexts) {
  Bench bench;
  ASSERT_TRUE(bench.ask(1).has_value());
  bench.wait_begun(1);
  ASSERT_TRUE(bench.ask(20).has_value());
  testing::expect_error(bench.ask(1), ErrorCode::kUnavailable, "the queue is full: 20 texts wait");
}

}  // namespace
}  // namespace tailor
