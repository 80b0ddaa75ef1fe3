#include "infer/drain_rate.h"

#include <gtest/gtest.h>

namespace tailor {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
const SteadyTime kStart{};

TEST(DrainRate, IsWhatWasDoneWhileSomethingWaited) {
  DrainRate rate;
  rate.advance(0, true, kStart);
  EXPECT_FALSE(rate.per_second());
  for (int i = 1; i <= 4; ++i) rate.advance(50, true, kStart + milliseconds(500) * i);
  EXPECT_NEAR(*rate.per_second(), 100, 5);  // later halves weigh a little more
}

TEST(DrainRate, AnIdleTimeAndOneWithRoomSayNothing) {
  DrainRate rate;
  rate.advance(0, true, kStart);
  rate.advance(200, false, kStart + seconds(2));
  ASSERT_TRUE(rate.per_second());
  const double before = *rate.per_second();
  rate.advance(1, false, kStart + seconds(1000));
  rate.advance(1, true, kStart + seconds(2000));
  EXPECT_EQ(*rate.per_second(), before);
}

TEST(DrainRate, IsUnknownUntilASecondOfWaitingWasSeen) {
  DrainRate rate;
  for (int i = 0; i < 9; ++i) {
    rate.advance(0, true, kStart + seconds(10 * i));
    rate.advance(10, false, kStart + seconds(10 * i) + milliseconds(100));
    EXPECT_FALSE(rate.per_second());
  }
  rate.advance(0, true, kStart + seconds(100));
  rate.advance(10, false, kStart + seconds(101));
  EXPECT_TRUE(rate.per_second());
}

TEST(DrainRate, FollowsAChange) {
  DrainRate rate;
  rate.advance(0, true, kStart);
  SteadyTime now = kStart;
  for (int i = 0; i < 100; ++i) rate.advance(1000, true, now += seconds(1));
  EXPECT_NEAR(*rate.per_second(), 1000, 1);
  for (int i = 0; i < 100; ++i) rate.advance(10, true, now += seconds(1));
  EXPECT_NEAR(*rate.per_second(), 10, 10);
}

TEST(DrainRate, NothingDoneIsNoRate) {
  DrainRate rate;
  rate.advance(0, true, kStart);
  rate.advance(0, true, kStart + seconds(5));
  EXPECT_FALSE(rate.per_second());
}

}  // namespace
}  // namespace tailor
