#include "tune/hard_negatives.h"

#include <ATen/ops/empty.h>
#include <gtest/gtest.h>

#include <cmath>

#include "core/files.h"
#include "core/result.h"

namespace tailor::tune {
namespace {

/// Rows on the unit circle: labels 0 0 1 1 2 at 0, 10, 25, 90, 44 degrees; row 2 is not trained on.
TokenFile rows(std::vector<std::int32_t> labels = {0, 0, -1, 1, 1, 2}) {
  TokenFile file;
  file.n_labels = 3;
  file.vocab_size = 9;
  const std::vector<std::int32_t> ids{1};
  for (std::size_t i = 0; i < labels.size(); ++i)
    file.add_row(ids, labels[i], i == 2 ? TokenPart::kTest : TokenPart::kTrain, static_cast<std::int64_t>(i));
  return file;
}

at::Tensor vectors() {
  at::Tensor v = at::empty({5, 2}, at::kFloat);
  float* p = v.data_ptr<float>();
  for (const double degrees : {0.0, 10.0, 25.0, 90.0, 44.0}) {
    *p++ = static_cast<float>(std::cos(degrees * M_PI / 180));
    *p++ = static_cast<float>(std::sin(degrees * M_PI / 180));
  }
  return v;
}

std::vector<std::int64_t> list(RowSpan rows) {
  return {rows.begin(), rows.end()};
}

TEST(HardNegatives, AreTheNearestRowsOfOtherLabels) {
  const TemporaryDirectory dir;
  const TokenFile file = rows();
  HardNegatives mined(file, dir.path());
  EXPECT_EQ(list(mined.training_rows()), (std::vector<std::int64_t>{0, 1, 3, 4, 5}));
  mined.mine(vectors(), 2);
  EXPECT_EQ(mined.epoch(), 2);
  EXPECT_EQ(list(mined.of(0)), (std::vector<std::int64_t>{3, 5, 4}));
  EXPECT_EQ(list(mined.of(3)), (std::vector<std::int64_t>{1, 5, 0}));  // 10, 44, 0 degrees, from 25
  EXPECT_EQ(list(mined.of(5)), (std::vector<std::int64_t>{3, 1, 0, 4}));
  // Another process goes on inside the epoch.
  HardNegatives again(file, dir.path());
  again.read(2);
  for (const std::int64_t row : mined.training_rows()) EXPECT_EQ(list(again.of(row)), list(mined.of(row)));
}

TEST(HardNegatives, ThereAreNoneWhereAllRowsHaveOneLabel) {
  const TemporaryDirectory dir;
  const TokenFile file = rows({1, 1, -1, 1, 1, 1});
  HardNegatives mined(file, dir.path());
  mined.mine(vectors(), 0);
  EXPECT_TRUE(mined.of(4).empty());
}

TEST(HardNegatives, WhatIsAbsentOrOfOtherRowsIsAnError) {
  const TemporaryDirectory dir;
  const TokenFile file = rows();
  HardNegatives mined(file, dir.path());
  EXPECT_THROW(mined.read(0), Exception);
  mined.mine(vectors(), 0);
  TokenFile other = rows();
  other.add_row(std::vector<std::int32_t>{1}, 0, TokenPart::kTrain, 9);
  EXPECT_THROW(HardNegatives(other, dir.path()).read(0), Exception);
  EXPECT_THROW(HardNegatives(file, dir.path() / "absent").mine(vectors(), 0), Exception);
}

}  // namespace
}  // namespace tailor::tune
