#include "infer/alarm.h"

#include <gtest/gtest.h>

#include <future>

namespace tailor {
namespace {

using std::chrono::hours;
using std::chrono::milliseconds;

SteadyTime now() {
  return std::chrono::steady_clock::now();
}

TEST(Alarm, RingsWhenCalled) {
  Alarm alarm;
  alarm.ring();  // before anybody waits
  EXPECT_TRUE(alarm.wait());
  auto waiting = std::async(std::launch::async, [&] { return alarm.wait(); });
  alarm.ring();
  EXPECT_TRUE(waiting.get());
}

TEST(Alarm, RingsAtTheEarliestTimeAndNotBefore) {
  Alarm alarm;
  const SteadyTime soon = now() + milliseconds(30);
  alarm.ring_by(soon + hours(1));
  alarm.ring_by(soon);
  alarm.ring_by(soon + hours(2));
  EXPECT_TRUE(alarm.wait());
  EXPECT_GE(now(), soon);
}

TEST(Alarm, AnEarlierTimeWakesWhoSleepsUntilALaterOne) {
  Alarm alarm;
  alarm.ring_by(now() + hours(1));
  auto waiting = std::async(std::launch::async, [&] { return alarm.wait(); });
  alarm.ring_by(now());
  EXPECT_TRUE(waiting.get());
}

TEST(Alarm, IsStopped) {
  Alarm alarm;
  alarm.ring_by(now() + hours(1));
  auto waiting = std::async(std::launch::async, [&] { return alarm.wait(); });
  alarm.stop();
  EXPECT_FALSE(waiting.get());
  alarm.ring();
  EXPECT_FALSE(alarm.wait());
}

}  // namespace
}  // namespace tailor
