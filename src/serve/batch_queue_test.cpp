// Whose texts are computed next.

#include "serve/batch_queue.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace tailor {
namespace {

std::shared_ptr<WaitingTexts> texts(const std::string& client, std::size_t count, std::size_t bytes = 9) {
  auto out = std::make_shared<WaitingTexts>();
  out->client = client;
  out->bytes.assign(count, bytes);
  return out;
}

/// "aab": so many texts of each client, by name.
std::string clients_of(const std::vector<BatchPiece>& batch) {
  std::string out;
  for (const BatchPiece& piece : batch) out += std::string(piece.count, piece.request->client[0]);
  std::sort(out.begin(), out.end());
  return out;
}

TEST(BatchQueue, OneTextWaitsForNoThousandOfAnotherClient) {
  BatchQueue queue(10'000);
  queue.push(texts("a", 1000));
  EXPECT_EQ(clients_of(queue.take(4, 1000)), "aaaa");
  queue.push(texts("b", 1));
  EXPECT_EQ(queue.ahead_of("b").own, 10);
  EXPECT_EQ(clients_of(queue.take(4, 1000)), "aaab");
  EXPECT_EQ(clients_of(queue.take(4, 1000)), "aaaa");
}

TEST(BatchQueue, ClientsTakeTurnsByBytes) {
  BatchQueue queue(10'000);
  queue.push(texts("a", 100, 29));
  queue.push(texts("b", 100, 9));
  std::string all;
  for (int i = 0; i < 10; ++i) all += clients_of(queue.take(4, 1000));
  EXPECT_EQ(std::count(all.begin(), all.end(), 'a'), 10);
  EXPECT_EQ(std::count(all.begin(), all.end(), 'b'), 30);
}

TEST(BatchQueue, OfOneClientInTheOrderOfComing) {
  BatchQueue queue(100);
  const auto first = texts("a", 3), second = texts("a", 2);
  queue.push(first);
  queue.push(second);
  const auto batch = queue.take(4, 1000);
  ASSERT_EQ(batch.size(), 2u);
  EXPECT_EQ(batch[0].request, first);
  EXPECT_EQ(batch[0].count, 3u);
  EXPECT_EQ(batch[1].request, second);
  EXPECT_EQ(batch[1].count, 1u);
  EXPECT_EQ(queue.requests(), 1u);
  const auto rest = queue.take(4, 1000);
  ASSERT_EQ(rest.size(), 1u);
  EXPECT_EQ(rest[0].first, 1u);
  EXPECT_TRUE(queue.take(4, 1000).empty());
}

TEST(BatchQueue, ATextThatIsLargerThanABatchIsOneAlone) {
  BatchQueue queue(100);
  queue.push(texts("a", 1, 50));
  queue.push(texts("a", 1, 5));
  EXPECT_EQ(queue.take(4, 10).size(), 1u);
  EXPECT_EQ(queue.take(4, 10).size(), 1u);
}

TEST(BatchQueue, OneClientFillsItForItselfAlone) {
  BatchQueue queue(10);
  queue.push(texts("a", 10));
  EXPECT_TRUE(queue.is_full_for("a", 1));
  EXPECT_FALSE(queue.is_full_for("b", 5));
  EXPECT_TRUE(queue.is_full_for("b", 6));
  queue.push(texts("b", 5));
  EXPECT_TRUE(queue.is_full_for("b", 1));
  EXPECT_FALSE(queue.is_full_for("c", 3));
}

TEST(BatchQueue, WhatIsTooLateLeaves) {
  BatchQueue queue(100);
  const auto late = texts("a", 5), later = texts("a", 5);
  const SteadyTime now{std::chrono::hours(1)};
  late->deadline = now;
  later->deadline = now + std::chrono::milliseconds(1);
  queue.push(late);
  queue.push(later);
  EXPECT_EQ(queue.take(2, 1000).size(), 1u);  // of what has begun the rest is too late as well
  const auto expired = queue.take_expired(now);
  ASSERT_EQ(expired.size(), 1u);
  EXPECT_EQ(expired[0], late);
  EXPECT_EQ(queue.items(), 5u);
  EXPECT_EQ(queue.ahead_of("a").own, 50);
  queue.remove(*late);  // is not there any more
  EXPECT_EQ(queue.requests(), 1u);
}

}  // namespace
}  // namespace tailor
