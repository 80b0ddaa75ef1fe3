#include "infer/errand_mutex.h"

#include <gtest/gtest.h>

#include <thread>

namespace tailor {
namespace {

TEST(ErrandMutex, WhatIsLeftIsDoneAtOnceOrByItsHolder) {
  ErrandMutex mutex;
  int done = 0;
  const auto errand = [&] { ++done; };
  mutex.leave(errand);
  EXPECT_EQ(done, 1);
  {
    const std::lock_guard lock(mutex);
    mutex.leave(errand);  // would wait for itself
    mutex.leave([&] { mutex.leave(errand); });
    EXPECT_EQ(done, 1);
  }
  EXPECT_EQ(done, 3);
  mutex.leave(errand);
  EXPECT_EQ(done, 4);
}

TEST(ErrandMutex, OneAtATimeAndNothingIsLost) {
  ErrandMutex mutex;
  constexpr int kTimes = 2000;
  int locked = 0, left = 0;  // both under the mutex
  {
    std::vector<std::jthread> threads;
    for (int i = 0; i < 4; ++i) {
      threads.emplace_back([&, leaves = i % 2 == 0] {
        for (int n = 0; n < kTimes; ++n) {
          if (leaves) {
            mutex.leave([&] { ++left; });
          } else {
            const std::lock_guard lock(mutex);
            ++locked;
          }
        }
      });
    }
  }
  const std::lock_guard lock(mutex);
  EXPECT_EQ(locked, 2 * kTimes);
  EXPECT_EQ(left, 2 * kTimes);
}

}  // namespace
}  // namespace tailor
