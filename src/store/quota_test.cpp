#include "store/quota.h"

#include <atomic>
#include <thread>

#include "store/store_testing.h"

namespace tailor {
namespace {

using namespace std::chrono_literals;

constexpr UnixMillis kNoon{std::chrono::milliseconds(19'676 * 86'400'000LL + 43'200'000)};
constexpr std::int64_t kToday = 19'676;

bool let_in(const std::variant<QuotaGrant, QuotaRefusal>& answer) {
  return answer.index() == 0;
}
const QuotaRefusal& refusal(const std::variant<QuotaGrant, QuotaRefusal>& answer) {
  return std::get<1>(answer);
}

/// Let in, done and settled.
bool use(QuotaLedger& ledger, const QuotaLimits& limits, std::int64_t tokens, UnixMillis now) {
  auto answer = ledger.admit("k", limits, tokens, now);
  if (!let_in(answer)) return false;
  if (tokens > 0) std::get<0>(answer).settle(tokens, now);
  return true;
}

TEST(Quota, RequestsAMinute) {
  QuotaLedger ledger;
  const QuotaLimits limits{.requests_per_minute = 3};
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(use(ledger, limits, 1, kNoon));
  const auto refused = ledger.admit("k", limits, 1, kNoon);
  ASSERT_FALSE(let_in(refused));
  EXPECT_EQ(refusal(refused).limit, QuotaLimit::kRequestsPerMinute);
  EXPECT_EQ(refusal(refused).allowed, 3);
  EXPECT_EQ(refusal(refused).retry_after, 20s);
  EXPECT_FALSE(use(ledger, limits, 1, kNoon + 19'999ms));
  EXPECT_TRUE(use(ledger, limits, 1, kNoon + 20s)) << "after what retry_after said";
  EXPECT_FALSE(use(ledger, limits, 1, kNoon + 20s));
  EXPECT_TRUE(let_in(ledger.admit("other", limits, 1, kNoon))) << "each key for itself";
}

TEST(Quota, HeadersTellLimitRemainingAndReset) {
  QuotaLedger ledger;
  const QuotaLimits limits{.requests_per_minute = 60, .tokens_per_minute = 600, .tokens_per_day = 5000};
  auto answer = ledger.admit("k", limits, 100, kNoon);
  const QuotaState& state = std::get<0>(answer).state();
  EXPECT_EQ(state.requests->limit, 60);
  EXPECT_EQ(state.requests->remaining, 59);
  EXPECT_EQ(state.requests->reset, 1s);
  EXPECT_EQ(state.tokens->remaining, 500);
  EXPECT_EQ(state.tokens->reset, 10s);
  EXPECT_EQ(state.tokens_today->remaining, 4900);
  EXPECT_EQ(state.tokens_today->reset, 12h);
  EXPECT_EQ(state.in_flight, 1);
  const QuotaState none = ledger.state("unknown", {}, kNoon);
  EXPECT_FALSE(none.requests || none.tokens || none.tokens_today);
  EXPECT_EQ(ledger.state("unknown", limits, kNoon).tokens->remaining, 600);
  EXPECT_EQ(ledger.size(), 1U) << "asking makes no record";
}

TEST(Quota, TokensAreCorrectedWhenTheRequestEnds) {
  QuotaLedger ledger;
  const QuotaLimits limits{.tokens_per_minute = 600};
  {
    auto answer = ledger.admit("k", limits, 500, kNoon);
    EXPECT_EQ(refusal(ledger.admit("k", limits, 200, kNoon)).limit, QuotaLimit::kTokensPerMinute);
    std::get<0>(answer).settle(50, kNoon);
    std::get<0>(answer).settle(50, kNoon);  // once
  }
  EXPECT_EQ(ledger.state("k", limits, kNoon).tokens->remaining, 550);
  {
    auto answer = ledger.admit("k", limits, 100, kNoon);
    std::get<0>(answer).settle(800, kNoon);  // more than the bucket has
  }
  EXPECT_EQ(ledger.state("k", limits, kNoon).tokens->remaining, 0);
  const auto refused = ledger.admit("k", limits, 10, kNoon);
  EXPECT_EQ(refusal(refused).retry_after, 26s);  // 550 - 800 = -250; 10 more: 260 at 10 a second
}

TEST(Quota, WhatIsNotSettledCountsAsEstimated) {
  QuotaLedger ledger;
  const QuotaLimits limits{.requests_per_minute = 60, .tokens_per_minute = 600, .tokens_per_day = 1000};
  { const auto answer = ledger.admit("k", limits, 400, kNoon); }
  const QuotaState state = ledger.state("k", limits, kNoon);
  EXPECT_EQ(state.tokens->remaining, 200);
  EXPECT_EQ(state.tokens_today->remaining, 600);
  EXPECT_EQ(state.in_flight, 0);
}

TEST(Quota, ALongRequestThatIsDroppedRefillsNothingTwice) {
  QuotaLedger ledger;
  const QuotaLimits limits{.requests_per_minute = 600, .tokens_per_minute = 100};
  {
    const auto dropped = ledger.admit("k", limits, 10, kNoon);
    ASSERT_TRUE(let_in(dropped));
    ASSERT_TRUE(use(ledger, limits, 100, kNoon + 90s)) << "all that the minute has";
  }
  EXPECT_FALSE(use(ledger, limits, 50, kNoon + 90s));
  EXPECT_EQ(ledger.state("k", limits, kNoon + 90s).tokens->remaining, 0);
}

TEST(Quota, ARequestThatCameToNothingIsGivenBack) {
  QuotaLedger ledger;
  const QuotaLimits limits{.requests_per_minute = 5, .tokens_per_minute = 600, .tokens_per_day = 1000};
  auto answer = ledger.admit("k", limits, 400, kNoon);
  std::get<0>(answer).settle(0, kNoon);
  { const auto dropped = ledger.admit("other", limits, 0, kNoon); }
  EXPECT_EQ(ledger.state("other", limits, kNoon).requests->remaining, 4) << "dropped is not settled with 0";
  const QuotaState state = ledger.state("k", limits, kNoon);
  EXPECT_EQ(state.requests->remaining, 5);
  EXPECT_EQ(state.tokens->remaining, 600);
  EXPECT_EQ(state.tokens_today->remaining, 1000);
}

TEST(Quota, ARefusedRequestTakesNothing) {
  QuotaLedger ledger;
  const QuotaLimits limits{.requests_per_minute = 2, .tokens_per_minute = 100};
  EXPECT_TRUE(use(ledger, limits, 80, kNoon));
  for (int i = 0; i < 10; ++i) EXPECT_FALSE(use(ledger, limits, 50, kNoon));
  EXPECT_TRUE(use(ledger, limits, 20, kNoon));
}

TEST(Quota, WhatNeverFitsIsSaidToBeTooLarge) {
  QuotaLedger ledger;
  const auto minute = ledger.admit("k", {.tokens_per_minute = 100}, 101, kNoon);
  EXPECT_EQ(refusal(minute).limit, QuotaLimit::kTooLarge);
  EXPECT_EQ(refusal(minute).allowed, 100);
  EXPECT_EQ(refusal(minute).retry_after, 0s);
  EXPECT_EQ(refusal(ledger.admit("k", {.tokens_per_day = 100}, INT64_MAX, kNoon)).limit, QuotaLimit::kTooLarge);
  EXPECT_TRUE(let_in(ledger.admit("k", {}, INT64_MAX, kNoon)));
  EXPECT_TRUE(let_in(ledger.admit("k", {}, INT64_MIN, kNoon)));
}

TEST(Quota, ADayEndsAtMidnight) {
  QuotaLedger ledger;
  const QuotaLimits limits{.tokens_per_day = 100};
  EXPECT_TRUE(use(ledger, limits, 90, kNoon));
  const auto refused = ledger.admit("k", limits, 11, kNoon);
  EXPECT_EQ(refusal(refused).limit, QuotaLimit::kTokensPerDay);
  EXPECT_EQ(refusal(refused).retry_after, 12h);
  EXPECT_FALSE(use(ledger, limits, 11, kNoon + 12h - 1ms));
  EXPECT_TRUE(use(ledger, limits, 100, kNoon + 12h));
}

TEST(Quota, ARequestOverMidnightIsOfTheDayItEnds) {
  QuotaLedger ledger;
  const QuotaLimits limits{.tokens_per_day = 100};
  auto answer = ledger.admit("k", limits, 90, kNoon);
  EXPECT_EQ(ledger.state("k", limits, kNoon + 12h).tokens_today->remaining, 100);
  std::get<0>(answer).settle(40, kNoon + 12h);
  EXPECT_EQ(ledger.state("k", limits, kNoon + 12h).tokens_today->remaining, 60);
  const auto unsaved = ledger.take_unsaved();
  ASSERT_EQ(unsaved.size(), 1U);
  EXPECT_EQ(unsaved[0].day, kToday + 1);
}

TEST(Quota, PlacesAreLimitedAndGivenBack) {
  QuotaLedger ledger;
  const QuotaLimits limits{.max_concurrent = 2};
  auto one = ledger.admit("k", limits, 0, kNoon);
  {
    const auto two = ledger.admit("k", limits, 0, kNoon);
    const auto refused = ledger.admit("k", limits, 0, kNoon);
    EXPECT_EQ(refusal(refused).limit, QuotaLimit::kConcurrent);
    EXPECT_GT(refusal(refused).retry_after, 0s);
  }
  EXPECT_TRUE(let_in(ledger.admit("k", limits, 0, kNoon)));
  {
    const QuotaGrant moved = std::get<0>(std::move(one));
    EXPECT_EQ(ledger.state("k", limits, kNoon).in_flight, 1) << "a moved grant is one grant";
  }
  EXPECT_EQ(ledger.state("k", limits, kNoon).in_flight, 0);
}

TEST(Quota, ChangedLimitsHoldAtOnce) {
  QuotaLedger ledger;
  for (int i = 0; i < 2; ++i) EXPECT_TRUE(use(ledger, {.requests_per_minute = 2}, 1, kNoon));
  EXPECT_FALSE(use(ledger, {.requests_per_minute = 2}, 1, kNoon));
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(use(ledger, {.requests_per_minute = 5}, 1, kNoon));
  EXPECT_FALSE(use(ledger, {.requests_per_minute = 5}, 1, kNoon));
  EXPECT_TRUE(use(ledger, {}, 1, kNoon));
  EXPECT_EQ(ledger.state("k", {.requests_per_minute = 1}, kNoon).requests->remaining, 1);
}

TEST(Quota, AClockThatGoesBackGivesNothingTwice) {
  QuotaLedger ledger;
  const QuotaLimits limits{.requests_per_minute = 60};
  for (int i = 0; i < 60; ++i) EXPECT_TRUE(use(ledger, limits, 1, kNoon));
  EXPECT_TRUE(use(ledger, limits, 1, kNoon + 1s));
  for (int i = 0; i < 10; ++i) {
    EXPECT_FALSE(use(ledger, limits, 1, kNoon));
    EXPECT_FALSE(use(ledger, limits, 1, kNoon + 1s));
  }
  EXPECT_FALSE(use(ledger, limits, 1, kNoon - 1h)) << "set back";
  EXPECT_TRUE(use(ledger, limits, 1, kNoon - 1h + 1s)) << "goes on from there";
}

TEST(Quota, MemoryIsBounded) {
  QuotaLedger ledger(10);
  const QuotaLimits limits{.requests_per_minute = 60};
  for (int i = 0; i < 10; ++i) EXPECT_TRUE(let_in(ledger.admit(std::to_string(i), limits, 0, kNoon)));
  EXPECT_EQ(refusal(ledger.admit("x", limits, 0, kNoon)).limit, QuotaLimit::kTooManyKeys) << "all have used something";
  EXPECT_TRUE(let_in(ledger.admit("x", limits, 0, kNoon + 1s))) << "the others are full again";
  EXPECT_EQ(ledger.size(), 1U);
}

TEST(Quota, ARestartDoesNotGiveTheDayBack) {
  TestStore store;
  const QuotaLimits limits{.tokens_per_day = 100};
  {
    QuotaLedger ledger;
    EXPECT_TRUE(use(ledger, limits, 60, kNoon));
    store->token_days().sync(ledger, kNoon).value();
    store->token_days().sync(ledger, kNoon).value();
    EXPECT_EQ(ledger.state("k", limits, kNoon).tokens_today->remaining, 40) << "saving twice counts once";
    EXPECT_TRUE(use(ledger, limits, 10, kNoon));
    store->token_days().sync(ledger, kNoon).value();
  }
  store.open();
  QuotaLedger ledger;
  store->token_days().sync(ledger, kNoon).value();
  EXPECT_EQ(ledger.state("k", limits, kNoon).tokens_today->remaining, 30);
  EXPECT_FALSE(use(ledger, limits, 31, kNoon));
  EXPECT_TRUE(use(ledger, limits, 31, kNoon + 12h));
}

TEST(Quota, TwoServersOfOneStoreShareTheDay) {
  const TestStore store;
  const QuotaLimits limits{.tokens_per_day = 100};
  QuotaLedger one, two;
  EXPECT_TRUE(use(one, limits, 30, kNoon));
  EXPECT_TRUE(use(two, limits, 50, kNoon));
  for (int i = 0; i < 2; ++i) {
    store->token_days().sync(one, kNoon).value();
    store->token_days().sync(two, kNoon).value();
  }
  EXPECT_EQ(one.state("k", limits, kNoon).tokens_today->remaining, 20);
  EXPECT_EQ(two.state("k", limits, kNoon).tokens_today->remaining, 20);
}

TEST(Quota, DaysThatAreOverAreSavedAndOldOnesRemoved) {
  const TestStore store;
  QuotaLedger ledger;
  EXPECT_TRUE(use(ledger, {}, 7, kNoon));
  EXPECT_TRUE(use(ledger, {}, 8, kNoon + 24h));
  store->token_days().sync(ledger, kNoon + 24h).value();
  ASSERT_EQ(store->token_days().of_day(kToday).value().size(), 1U);
  EXPECT_EQ(store->token_days().of_day(kToday).value()[0].tokens, 7);
  EXPECT_EQ(store->token_days().of_day(kToday + 1).value()[0].tokens, 8);
  store->token_days().remove_before(kToday + 1).value();
  EXPECT_TRUE(store->token_days().of_day(kToday).value().empty());
}

TEST(Quota, WhatCouldNotBeSavedIsKept) {
  TestStore store;
  QuotaLedger ledger;
  EXPECT_TRUE(use(ledger, {}, 7, kNoon));
  const auto unsaved = ledger.take_unsaved();
  ledger.put_back(unsaved);
  store->token_days().sync(ledger, kNoon).value();
  EXPECT_EQ(store->token_days().of_day(kToday).value()[0].tokens, 7);
}

TEST(Quota, ThreadsNeverGetMoreThanTheLimit) {
  QuotaLedger ledger;
  const QuotaLimits limits{.requests_per_minute = 500, .max_concurrent = 3};
  std::atomic<int> admitted{0}, at_once{0}, most{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 1000; ++i) {
        auto answer = ledger.admit("k", limits, 1, kNoon);
        if (!let_in(answer)) continue;
        ++admitted;
        const int now = ++at_once;
        for (int seen = most; seen < now && !most.compare_exchange_weak(seen, now);) {
        }
        --at_once;
        std::get<0>(answer).settle(1, kNoon);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_LE(admitted, 500);
  EXPECT_LE(most, 3);
  EXPECT_EQ(ledger.state("k", limits, kNoon).in_flight, 0);
  EXPECT_EQ(ledger.take_unsaved()[0].tokens, admitted);
}

TEST(Quota, AGrantTakesMoreAsMoreBecomesKnown) {
  QuotaLedger ledger;
  const QuotaLimits limits{.requests_per_minute = 10, .tokens_per_minute = 100, .tokens_per_day = 150};
  auto answer = ledger.admit("k", limits, 0, kNoon);
  auto& grant = std::get<0>(answer);
  EXPECT_FALSE(grant.extend(60, kNoon));
  EXPECT_EQ(grant.state().tokens->remaining, 40);
  EXPECT_EQ(grant.extend(60, kNoon)->limit, QuotaLimit::kTooLarge) << "120 of 100";
  EXPECT_EQ(grant.state().tokens->remaining, 40) << "a refusal takes nothing";
  auto second = ledger.admit("k", limits, 0, kNoon);
  const auto refused = std::get<0>(second).extend(50, kNoon);
  ASSERT_TRUE(refused);
  EXPECT_EQ(refused->limit, QuotaLimit::kTokensPerMinute);
  EXPECT_EQ(refused->retry_after, 6s);
  EXPECT_EQ(std::get<0>(second).extend(100, kNoon)->limit, QuotaLimit::kTokensPerDay) << "60 of 150 are taken";
  grant.settle(10, kNoon);
  EXPECT_EQ(grant.state().tokens->remaining, 90);
  EXPECT_EQ(grant.state().tokens_today->remaining, 140);
  EXPECT_FALSE(grant.extend(1, kNoon)) << "after its end it takes nothing";
  EXPECT_EQ(ledger.state("k", limits, kNoon).tokens->remaining, 90);
}

TEST(Quota, WhatUsedNoTokensWasARequestAllTheSame) {
  QuotaLedger ledger;
  const QuotaLimits limits{.requests_per_minute = 10, .tokens_per_minute = 100};
  {
    auto answer = ledger.admit("k", limits, 30, kNoon);
    std::get<0>(answer).settle_unused(kNoon);
  }
  EXPECT_EQ(ledger.state("k", limits, kNoon).requests->remaining, 9);
  EXPECT_EQ(ledger.state("k", limits, kNoon).tokens->remaining, 100);
  EXPECT_EQ(ledger.state("k", limits, kNoon).in_flight, 0);
}

TEST(Quota, WorkInTheBackgroundTakesTokensAlone) {
  QuotaLedger ledger;
  const UnixMillis now = kNoon;
  const QuotaLimits limits{.requests_per_minute = 1, .tokens_per_minute = 100, .max_concurrent = 1};
  auto first = ledger.admit_background("k", limits, now);
  auto second = ledger.admit_background("k", limits, now);
  ASSERT_EQ(first.index(), 0U);
  ASSERT_EQ(second.index(), 0U);
  auto live = ledger.admit("k", limits, 0, now);
  ASSERT_EQ(live.index(), 0U) << "the minute's request and the place are there";
  EXPECT_FALSE(std::get<0>(first).extend(60, now));
  const auto refused = ledger.admit_background("k", limits, now);
  ASSERT_EQ(refused.index(), 1U) << "less than half is left";
  EXPECT_EQ(std::get<1>(refused).limit, QuotaLimit::kTokensPerMinute);
  EXPECT_EQ(std::get<1>(refused).retry_after, std::chrono::seconds(6));
  EXPECT_FALSE(std::get<0>(live).extend(40, now)) << "a live request gets the other half";
  std::get<0>(first).settle(50, now);
  EXPECT_EQ(ledger.state("k", limits, now).tokens->remaining, 10);
  EXPECT_EQ(ledger.state("k", limits, now).requests->remaining, 0);
  std::get<0>(second).settle(0, now);
  EXPECT_EQ(ledger.state("k", limits, now).requests->remaining, 0) << "it had taken none that could come back";
  EXPECT_EQ(ledger.state("k", limits, now).in_flight, 1);
}

}  // namespace
}  // namespace tailor
