#include "infer/request_queue.h"

#include <gtest/gtest.h>

#include <map>
#include <vector>

#include "model/test_support.h"

namespace tailor {
namespace {

using std::chrono::milliseconds;
const SteadyTime kStart{};
const auto kAny = [](const QueuedRequest&) { return true; };

std::vector<std::int64_t> take_all(RequestQueue& queue, SteadyTime now = kStart) {
  std::vector<std::int64_t> out;
  while (const auto request = queue.take(kAny, now)) out.push_back(request->id);
  return out;
}

TEST(RequestQueue, ClientsTakeTurnsByTokens) {
  RequestQueue queue;
  for (std::int64_t i = 0; i < 6; ++i) queue.push({.id = i, .client = "many", .tokens = 100}, kStart).value();
  queue.push({.id = 10, .client = "few", .tokens = 100}, kStart).value();
  queue.push({.id = 11, .client = "few", .tokens = 100}, kStart).value();
  EXPECT_EQ(take_all(queue), (std::vector<std::int64_t>{10, 0, 11, 1, 2, 3, 4, 5}));
  // Who was given much waits for who was given little, though its queue was empty in between.
  queue.push({.id = 20, .client = "big", .tokens = 1000}, kStart).value();
  EXPECT_EQ(queue.take(kAny, kStart)->id, 20);
  queue.push({.id = 21, .client = "big", .tokens = 10}, kStart).value();
  for (std::int64_t i = 30; i < 34; ++i) queue.push({.id = i, .client = "small", .tokens = 100}, kStart).value();
  EXPECT_EQ(take_all(queue), (std::vector<std::int64_t>{30, 31, 32, 33, 21}));
}

TEST(RequestQueue, EqualSharesOverALongRun) {
  RequestQueue queue;
  std::map<std::string, std::uint64_t> given;
  std::int64_t next = 0;
  const std::map<std::string, std::uint64_t> sizes{{"a", 10}, {"b", 100}, {"c", 37}};
  for (const auto& [client, tokens] : sizes) {
    for (int i = 0; i < 3; ++i) queue.push({.id = next++, .client = client, .tokens = tokens}, kStart).value();
  }
  for (int i = 0; i < 3000; ++i) {
    const auto request = queue.take(kAny, kStart);
    given[request->client] += request->tokens;
    queue.push({.id = next++, .client = request->client, .tokens = request->tokens}, kStart).value();
  }
  EXPECT_NEAR(static_cast<double>(given["a"]), static_cast<double>(given["b"]), 300);
  EXPECT_NEAR(static_cast<double>(given["c"]), static_cast<double>(given["b"]), 300);
}

TEST(RequestQueue, PrioritiesComeFirstButDoNotStarve) {
  RequestQueue queue({.rise_after = milliseconds(100)});
  queue.push({.id = 1, .client = "x", .priority = 0}, kStart).value();
  queue.push({.id = 2, .client = "x", .priority = 2}, kStart + milliseconds(50)).value();
  EXPECT_EQ(queue.take(kAny, kStart + milliseconds(60))->id, 2);
  queue.push({.id = 3, .client = "x", .priority = 2}, kStart + milliseconds(290)).value();
  EXPECT_EQ(take_all(queue, kStart + milliseconds(310)), (std::vector<std::int64_t>{1, 3}));
}

TEST(RequestQueue, TakesOnlyWhatFitsAndKeepsTheRest) {
  RequestQueue queue;
  queue.push({.id = 1, .client = "x", .group = 7}, kStart).value();
  queue.push({.id = 2, .client = "x", .group = 8}, kStart).value();
  const auto eight = [](const QueuedRequest& r) { return r.group == 8; };
  EXPECT_EQ(queue.oldest(eight)->id, 2);
  EXPECT_EQ(queue.take(eight, kStart)->id, 2);
  EXPECT_FALSE(queue.take(eight, kStart).has_value());
  EXPECT_EQ(queue.size(), 1u);
  queue.remove(1);
  queue.remove(1);
  EXPECT_EQ(queue.size(), 0u);
  EXPECT_EQ(queue.tokens(), 0u);
}

TEST(RequestQueue, IsBounded) {
  RequestQueue queue({.requests = 2, .tokens = 100});
  queue.push({.id = 1, .tokens = 60}, kStart).value();
  testing::expect_error(queue.push({.id = 2, .tokens = 60}, kStart), ErrorCode::kUnavailable, "the queue is full");
  queue.push({.id = 3, .tokens = 10}, kStart).value();
  testing::expect_error(queue.push({.id = 4, .tokens = 1}, kStart), ErrorCode::kUnavailable, "2 request(s)");
  queue.push_front({.id = 5, .tokens = 500});  // what was taken before is never refused
  EXPECT_EQ(queue.take(kAny, kStart)->id, 5);
}

}  // namespace
}  // namespace tailor
