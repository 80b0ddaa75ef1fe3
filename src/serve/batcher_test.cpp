// Requests that are answered together: who shares a batch, and who gets no answer.

#include "serve/batcher.h"

#include <gtest/gtest.h>

#include <atomic>
#include <future>

namespace tailor {
namespace {

using Numbers = Batcher<std::string, std::vector<int>>;

/// Computes lengths; a batch waits for open() where `closed`, so that others gather behind it.
class Lengths {
 public:
  explicit Lengths(BatcherOptions options = {}, bool closed = false) : closed_(closed) {
    batcher_ = std::make_unique<Numbers>([this](std::span<const std::string> texts) { return compute(texts); },
                                         std::make_shared<ComputeShare>(1), options);
  }
  ~Lengths() {
    open();
    batcher_.reset();
  }
  Numbers& operator*() { return *batcher_; }
  void open() {
    const std::lock_guard lock(mutex_);
    closed_ = false;
    changed_.notify_all();
  }
  void wait_until_computing() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return !sizes_.empty(); });
  }
  void stop() { batcher_.reset(); }
  std::vector<std::size_t> sizes() {
    const std::lock_guard lock(mutex_);
    return sizes_;
  }
  std::future<Result<Batched<std::vector<int>>>> ask(std::vector<std::string> texts, BatchedFor caller = {}) {
    auto promise = std::make_shared<std::promise<Result<Batched<std::vector<int>>>>>();
    auto future = promise->get_future();
    const Status status = batcher_->submit(
        std::move(texts), [promise](Result<Batched<std::vector<int>>> rows) { promise->set_value(std::move(rows)); },
        std::move(caller));
    if (!status.has_value()) promise->set_value(status.error());
    return future;
  }

 private:
  Result<std::vector<int>> compute(std::span<const std::string> texts) {
    std::unique_lock lock(mutex_);
    sizes_.push_back(texts.size());
    changed_.notify_all();
    changed_.wait(lock, [&] { return !closed_; });
    std::vector<int> out;
    for (const std::string& text : texts) {
      if (text == "throw") throw std::runtime_error("no such text");
      if (text == "fail") return Error{ErrorCode::kCorruptData, "a text that fails", ""};
      out.push_back(static_cast<int>(text.size()));
    }
    return out;
  }
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::size_t> sizes_;
  bool closed_;
  std::unique_ptr<Numbers> batcher_;
};

TEST(Batcher, EachRequestGetsItsOwnRowsOfABatch) {
  Lengths lengths({}, true);
  auto first = lengths.ask({"a"});
  lengths.wait_until_computing();
  auto second = lengths.ask({"bb", "ccc"}), third = lengths.ask({"dddd"});
  lengths.open();
  EXPECT_EQ(first.get()->rows, std::vector<int>{1});
  const auto two = second.get();
  EXPECT_EQ(two->rows, (std::vector<int>{2, 3}));
  EXPECT_EQ(two->batch_items, 3u);
  EXPECT_EQ(third.get()->rows, std::vector<int>{4});
  EXPECT_EQ(lengths.sizes(), (std::vector<std::size_t>{1, 3}));
}

TEST(Batcher, ABatchHasSoManyItemsAndBytes) {
  Lengths by_items({.batch_items = 2}, true);
  auto a = by_items.ask({"a"});
  by_items.wait_until_computing();
  auto b = by_items.ask({"b"}), c = by_items.ask({"c", "d"}), e = by_items.ask({"e", "f", "g"});
  by_items.open();
  EXPECT_EQ(e.get()->rows.size(), 3u);
  EXPECT_EQ(by_items.sizes(), (std::vector<std::size_t>{1, 2, 2, 2}));

  Lengths by_bytes({.batch_bytes = 5}, true);
  auto first = by_bytes.ask({"a"});
  by_bytes.wait_until_computing();
  auto x = by_bytes.ask({"xxx"}), y = by_bytes.ask({"yy"}), z = by_bytes.ask({"z"});
  by_bytes.open();
  EXPECT_EQ(z.get()->rows, std::vector<int>{1});
  EXPECT_EQ(by_bytes.sizes(), (std::vector<std::size_t>{1, 2, 1}));
}

TEST(Batcher, AFullQueueRefuses) {
  Lengths lengths({.queue_items = 2}, true);
  auto running = lengths.ask({"a"});
  lengths.wait_until_computing();
  auto waits = lengths.ask({"b"});
  EXPECT_EQ((*lengths).waiting(), 1u);
  const auto refused = lengths.ask({"c", "d"}).get();
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code, ErrorCode::kUnavailable);
  lengths.open();
  EXPECT_TRUE(waits.get().has_value());
}

TEST(Batcher, TellsWhatItHasToDoAndByWhenItsBatchEnds) {
  const SteadyTime start = std::chrono::steady_clock::now();
  std::atomic<int> passed = 0;
  Lengths lengths({.clock = [&] { return start + std::chrono::seconds(passed); }}, true);
  const auto idle = [&] {
    const BatcherLoad load = (*lengths).load();
    return load.running == 0 && load.waiting == 0 && load.items == 0 && !load.due;
  };
  EXPECT_TRUE(idle());
  passed = 100;  // before it began nothing was late
  auto running = lengths.ask({"a", std::string(512, 'b')});
  lengths.wait_until_computing();
  auto waits = lengths.ask({"c", "d"}), also = lengths.ask({"e"});
  const BatcherLoad load = (*lengths).load();
  EXPECT_EQ(load.running, 1u);
  EXPECT_EQ(load.waiting, 2u);
  EXPECT_EQ(load.items, 3u);
  ASSERT_TRUE(load.due.has_value());
  EXPECT_EQ(*load.due, start + std::chrono::seconds(100 + 60 + 2 + 2)) << "a minute, and more for texts and bytes";
  lengths.open();
  EXPECT_TRUE(running.get().has_value());
  EXPECT_TRUE(waits.get().has_value());
  EXPECT_TRUE(also.get().has_value());
  EXPECT_TRUE(idle()) << "told before its last answer";
  BatcherLoad sum{.running = 1, .due = start + std::chrono::seconds(9)};
  sum.add({.running = 2, .waiting = 3, .items = 4, .due = start + std::chrono::seconds(5)});
  sum.add({});
  EXPECT_EQ(sum.running, 3u);
  EXPECT_EQ(sum.due, start + std::chrono::seconds(5)) << "the earliest";
}

TEST(Batcher, FailuresReachAllOfTheBatch) {
  Lengths lengths;
  EXPECT_EQ(lengths.ask({"fail"}).get().error().message, "a text that fails");
  const auto thrown = lengths.ask({"throw"}).get();
  EXPECT_EQ(thrown.error().code, ErrorCode::kInternal);
  EXPECT_NE(thrown.error().message.find("no such text"), std::string::npos);
  EXPECT_TRUE(lengths.ask({"good"}).get().has_value());  // the next ones are computed
}

TEST(Batcher, WhoHasGoneIsNotComputed) {
  Lengths lengths({}, true);
  auto running = lengths.ask({"a"});
  lengths.wait_until_computing();
  auto gone = lengths.ask({"b"}, {.gone = [] { return true; }});
  auto stays = lengths.ask({"c"}, {.gone = [] { return false; }});
  lengths.open();
  EXPECT_TRUE(stays.get().has_value());
  EXPECT_EQ(lengths.sizes(), (std::vector<std::size_t>{1, 1}));
}

TEST(Batcher, WhatWaitsAtTheEndIsCancelled) {
  Lengths lengths({}, true);
  auto running = lengths.ask({"a"});
  lengths.wait_until_computing();
  auto waits = lengths.ask({"b"});
  std::thread ends([&] { lengths.stop(); });
  lengths.open();
  ends.join();
  EXPECT_TRUE(running.get().has_value());
  const auto cancelled = waits.get();
  EXPECT_TRUE(cancelled.has_value() || cancelled.error().code == ErrorCode::kCancelled);
}

TEST(Batcher, ARequestThatIsSpreadOverBatchesIsAnsweredAsAWhole) {
  Lengths lengths({.batch_items = 3}, true);
  auto first = lengths.ask({"a"}, {.client = "one"});
  lengths.wait_until_computing();
  auto many = lengths.ask({"1", "22", "333", "4444", "55555", "666666", "7777777"}, {.client = "one"});
  auto single = lengths.ask({"88"}, {.client = "other"});
  lengths.open();
  EXPECT_EQ(single.get()->rows, std::vector<int>{2});
  const auto all = many.get();
  EXPECT_EQ(all->rows, (std::vector<int>{1, 2, 3, 4, 5, 6, 7}));
  EXPECT_EQ(lengths.sizes(), (std::vector<std::size_t>{1, 3, 3, 2}));
}

TEST(Batcher, AFailureEndsAllOfItsRequest) {
  Lengths lengths({.batch_items = 2}, true);
  auto first = lengths.ask({"a"});
  lengths.wait_until_computing();
  auto fails = lengths.ask({"fail", "b", "c", "d", "e"});
  auto next = lengths.ask({"f"});
  lengths.open();
  EXPECT_EQ(fails.get().error().message, "a text that fails");
  EXPECT_TRUE(next.get().has_value());
  EXPECT_EQ(lengths.sizes(), (std::vector<std::size_t>{1, 2, 1})) << "the rest of it was computed";
}

TEST(Batcher, WhatWaitsLongerThanItMayIsTakenOut) {
  const auto now = std::make_shared<std::atomic<int>>(0);
  Lengths lengths({.clock = [now] { return SteadyTime(std::chrono::seconds(now->load())); }}, true);
  auto running = lengths.ask({"a"});
  lengths.wait_until_computing();
  auto late = lengths.ask({"b"}, {.deadline = SteadyTime(std::chrono::seconds(10))});
  auto in_time = lengths.ask({"c"}, {.deadline = SteadyTime(std::chrono::seconds(11))});
  *now = 10;
  lengths.open();
  const auto refused = late.get();
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code, ErrorCode::kCancelled);
  EXPECT_EQ(refused.error().message, "the request took longer than its time-out");
  EXPECT_TRUE(in_time.get().has_value());
  EXPECT_EQ(lengths.sizes(), (std::vector<std::size_t>{1, 1}));
}

TEST(Batcher, TakesNoRequestWithoutTexts) {
  Lengths lengths;
  EXPECT_EQ(lengths.ask({}).get().error().code, ErrorCode::kInvalidArgument);
}

/// Says that an hour has passed each time it is asked.
std::function<SteadyTime()> hours() {
  return [hour = std::make_shared<std::atomic<int>>(0)] { return SteadyTime(std::chrono::hours(++*hour)); };
}

TEST(Batcher, ClientsThatWereAnsweredTogetherAreAnsweredTogetherAgain) {
  Lengths lengths(
      {.waiting_time = std::chrono::hours(9999), .gathering_time = std::chrono::minutes(1), .clock = hours()}, true);
  auto first = lengths.ask({"a"});
  lengths.wait_until_computing();
  auto second = lengths.ask({"bb"}), third = lengths.ask({"ccc"});
  lengths.open();
  EXPECT_EQ(second.get()->batch_items + third.get()->batch_items, 4u);
  auto fourth = lengths.ask({"dddd"}), fifth = lengths.ask({"eeeee"});
  EXPECT_EQ(fourth.get()->batch_items, 2u);
  EXPECT_EQ(fifth.get()->batch_items, 2u);
}

TEST(Batcher, AClientAloneWaitsForNobody) {
  Lengths lengths(
      {.waiting_time = std::chrono::hours(9999), .gathering_time = std::chrono::hours(9999), .clock = hours()});
  for (const char* text : {"a", "bb", "ccc"}) EXPECT_EQ(lengths.ask({text}).get()->batch_items, 1u);
}

}  // namespace
}  // namespace tailor
