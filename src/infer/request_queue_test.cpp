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

TEST(RequestQueue, AFloodThatHasWaitedLongDelaysNobodyElse) {
  RequestQueue queue({.rise_after = milliseconds(100)});
  for (std::int64_t i = 0; i < 50; ++i) queue.push({.id = i, .client = "flood", .tokens = 100}, kStart).value();
  const SteadyTime later = kStart + milliseconds(5000);  // it has risen by fifty
  EXPECT_EQ(queue.take(kAny, later)->client, "flood");
  queue.push({.id = 100, .client = "new", .tokens = 100}, later).value();
  EXPECT_EQ(queue.take(kAny, later)->client, "new");
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

TEST(RequestQueue, WhatIsLargerThanItsBoundsGoesInAlone) {
  RequestQueue queue({.requests = 4, .tokens = 100});
  queue.push({.id = 1, .client = "a", .tokens = 500}, kStart).value();
  testing::expect_error(queue.push({.id = 2, .client = "a", .tokens = 1}, kStart), ErrorCode::kUnavailable,
                        "the queue is full");
}

TEST(RequestQueue, OneClientFillsItForItselfAlone) {
  RequestQueue queue({.requests = 4, .tokens = 400});
  for (std::int64_t i = 0; i < 4; ++i) queue.push({.id = i, .client = "flood", .tokens = 100}, kStart).value();
  testing::expect_error(queue.push({.id = 9, .client = "flood", .tokens = 1}, kStart), ErrorCode::kUnavailable,
                        "the queue is full");
  for (std::int64_t i = 10; i < 12; ++i)
    queue.push({.id = i, .client = "other", .tokens = 100}, kStart).value();  // its half
  testing::expect_error(queue.push({.id = 12, .client = "other", .tokens = 1}, kStart), ErrorCode::kUnavailable,
                        "the queue is full");
  queue.push({.id = 20, .client = "third", .tokens = 100}, kStart).value();
  testing::expect_error(queue.push({.id = 21, .client = "third", .tokens = 1}, kStart), ErrorCode::kUnavailable,
                        "the queue is full");
  for (const char* client : {"a", "b", "c", "d", "e"}) {
    if (!queue.push({.id = 30 + client[0], .client = client, .tokens = 1}, kStart)) break;
  }
  EXPECT_LE(queue.size(), 8u);  // however many clients there are
  while (queue.take(kAny, kStart)) {
  }
  EXPECT_EQ(queue.tokens(), 0u);
  queue.push({.id = 50, .client = "flood", .tokens = 400}, kStart).value();
}

// What is ahead of a newcomer is what take() gives out before it.
double taken_before(RequestQueue queue, const std::string& client, int priority = 0) {
  queue.push({.id = 999, .client = client, .priority = priority, .tokens = 1}, kStart).value();
  double out = 0;
  for (auto next = queue.take(kAny, kStart); next->id != 999; next = queue.take(kAny, kStart))
    out += static_cast<double>(next->tokens);
  return out;
}

TEST(RequestQueue, WhatIsAheadIsOnesOwnAndTheSharesOfOthers) {
  RequestQueue queue({.rise_after = milliseconds(0)});
  EXPECT_EQ(queue.ahead_of("new", 0, kAny).all, 0);
  for (std::int64_t i = 0; i < 100; ++i) queue.push({.id = i, .client = "flood", .tokens = 10}, kStart).value();
  EXPECT_EQ(queue.ahead_of("flood", 0, kAny).own, 1000);
  EXPECT_EQ(queue.ahead_of("flood", 0, kAny).all, 1000);
  EXPECT_EQ(queue.ahead_of("new", 0, kAny).all, 0);
  for (std::int64_t i = 200; i < 205; ++i) queue.push({.id = i, .client = "some", .tokens = 10}, kStart).value();
  EXPECT_EQ(queue.ahead_of("some", 0, kAny).own, 50);
  EXPECT_NEAR(queue.ahead_of("some", 0, kAny).all, taken_before(queue, "some"), 10);
  EXPECT_NEAR(queue.ahead_of("flood", 0, kAny).all, taken_before(queue, "flood"), 10);
  // One that was given much already comes later.
  for (int i = 0; i < 20; ++i)
    ASSERT_TRUE(queue.take([](const QueuedRequest& r) { return r.client == "flood"; }, kStart));
  EXPECT_NEAR(queue.ahead_of("flood", 0, kAny).all, taken_before(queue, "flood"), 10);
  EXPECT_NEAR(queue.ahead_of("some", 0, kAny).all, taken_before(queue, "some"), 10);
}

TEST(RequestQueue, PrioritiesAreAheadOrBehindAsAWhole) {
  RequestQueue queue({.rise_after = milliseconds(0)});
  queue.push({.id = 1, .client = "a", .priority = 1, .tokens = 70}, kStart).value();
  queue.push({.id = 2, .client = "a", .priority = 0, .tokens = 50}, kStart).value();
  queue.push({.id = 3, .client = "a", .priority = -1, .tokens = 30}, kStart).value();
  EXPECT_EQ(queue.ahead_of("b", 0, kAny).all, 70);
  EXPECT_EQ(queue.ahead_of("a", 0, kAny).all, 120);
  EXPECT_EQ(queue.ahead_of("b", 2, kAny).all, 0);
  const auto behind_two = [](const QueuedRequest& r) { return r.id != 2; };
  EXPECT_EQ(queue.ahead_of("a", 0, behind_two).all, 70);
}

}  // namespace
}  // namespace tailor
