#include "serve/work_pool.h"

#include <gtest/gtest.h>

#include <atomic>

namespace tailor {
namespace {

TEST(WorkPool, StopDoesWhatWasAddedBeforeAndNothingLater) {
  std::atomic<bool> open{false};
  std::atomic<int> done{0};
  WorkPool pool(1);
  pool.add([&] { open.wait(false); });
  for (int i = 0; i < 3; ++i) pool.add([&] { ++done; });
  std::thread opener([&] {
    open = true;
    open.notify_all();
  });
  pool.stop();
  EXPECT_EQ(done, 3);
  pool.add([&] { ++done; });
  pool.stop();
  EXPECT_EQ(done, 3);
  opener.join();
}

}  // namespace
}  // namespace tailor
