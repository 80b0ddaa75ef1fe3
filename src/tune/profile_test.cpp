#include "tune/profile.h"

#include <gtest/gtest.h>

#include <thread>

#include "core/json.h"

namespace tailor::tune {
namespace {

TEST(Profile, CountsCallsOfStepsAndNothingElse) {
  Profile profile;
  { const ProfileScope outside = ProfileScope::product(Kernel::kProduct, 1, 1, 1); }
  {
    const ProfileStep step;
    { const ProfileScope scope = ProfileScope::product(Kernel::kProduct, 2, 3, 5); }
    { const ProfileScope scope = ProfileScope::product(Kernel::kProduct, 1, 1, 1); }
    { const ProfileScope scope(Kernel::kNorm, 7, 11); }
  }
  const Json json = profile.json();
  EXPECT_EQ(json["steps"], 1);
  EXPECT_EQ(json["kernels"].size(), 2u);
  EXPECT_EQ(json["kernels"]["product"]["calls"], 2);
  EXPECT_EQ(json["kernels"]["product"]["flops"], 2.0 * 2 * 3 * 5 + 2);
  EXPECT_EQ(json["kernels"]["product"]["bytes"], 4.0 * (2 * 5 + 5 * 3 + 2 * 3 + 3));
  EXPECT_EQ(json["kernels"]["norm"]["flops"], 7.0);
  EXPECT_EQ(json["kernels"]["norm"]["bytes"], 44.0);
}

TEST(Profile, TimeOfAKernelWithinAnotherIsItsOwn) {
  const auto spin = [] {  // until the clock has moved
    const auto start = std::chrono::steady_clock::now();
    while (std::chrono::steady_clock::now() - start < std::chrono::milliseconds(2)) {
    }
  };
  Profile profile;
  {
    const ProfileStep step;
    const ProfileScope outer(Kernel::kNorm);
    spin();
    {
      const ProfileScope inner(Kernel::kProduct);
      spin();
    }
    spin();
  }
  const Json json = profile.json();
  const double outer = json["kernels"]["norm"]["seconds"], inner = json["kernels"]["product"]["seconds"];
  EXPECT_GE(outer, 0.004);
  EXPECT_GE(inner, 0.002);
  // Each moment belongs to one kernel, and all of them to the step.
  EXPECT_LE(outer + inner, json["seconds"].get<double>() + 1e-9);
}

TEST(Profile, AnotherThreadCountsNothing) {
  Profile profile;
  const ProfileStep step;
  std::thread([] { const ProfileScope scope(Kernel::kNorm, 1, 1); }).join();
  EXPECT_TRUE(profile.json()["kernels"].empty());
}

TEST(Profile, WithoutOneAScopeDoesNothing) {
  const ProfileStep step;
  const ProfileScope scope(Kernel::kNorm, 1, 1);
  EXPECT_EQ(detail::profile, nullptr);
}

}  // namespace
}  // namespace tailor::tune
