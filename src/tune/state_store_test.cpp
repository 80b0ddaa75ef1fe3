#include "tune/state_store.h"

#include <gtest/gtest.h>

#include "core/files.h"
#include "tune/job.h"

namespace tailor::tune {
namespace {

TokenFile rows() {
  TokenFile file;
  file.vocab_size = 10;
  file.add_row(std::vector<std::int32_t>{1, 2, 3}, 0, TokenPart::kTrain, 0);
  file.add_row(std::vector<std::int32_t>{4}, 0, TokenPart::kTest, 1);
  file.add_row(std::vector<std::int32_t>{5, 6}, 1, TokenPart::kTrain, 2);
  return file;
}
constexpr TokenPart kTrain[] = {TokenPart::kTrain};

TEST(StateStore, GivesBackPartsOfWhatItWasGiven) {
  const TemporaryDirectory dir;
  const auto store = StateStore::make(dir.path(), rows(), kTrain, 2);
  ASSERT_NE(store, nullptr);
  EXPECT_TRUE(std::filesystem::is_empty(dir.path()));  // the file has no name
  EXPECT_TRUE(store->wants(0));
  EXPECT_FALSE(store->wants(1) || store->holds(1));  // no training row
  store->put(2, std::vector<float>{7, 8, 9, 10});
  store->put(0, std::vector<float>{1, 2, 3, 4});  // of its first two tokens
  EXPECT_TRUE(store->holds(0) && store->holds(2));
  EXPECT_FALSE(store->wants(0));
  std::vector<float> out(2);
  store->get(0, 1, 1, out.data());
  EXPECT_EQ(out, (std::vector<float>{3, 4}));
  out.resize(4);
  store->get(2, 0, 2, out.data());
  EXPECT_EQ(out, (std::vector<float>{7, 8, 9, 10}));
}

TEST(StateStore, IsNotThereWhereItHasNoRoom) {
  const TemporaryDirectory dir;
  EXPECT_EQ(StateStore::make(dir.path() / "absent", rows(), kTrain, 2), nullptr);
  EXPECT_EQ(StateStore::make(dir.path(), rows(), kTrain, std::int64_t{1} << 50), nullptr);
}

TEST(StateStore, IsForRowsThatComeAgain) {
  Job job;
  job.settings.batch_size = 1;
  job.settings.epochs = 1;
  EXPECT_FALSE(visits_rows_again(job, rows()));
  job.settings.epochs = 1.5;
  EXPECT_TRUE(visits_rows_again(job, rows()));
  job.settings.max_steps = 2;  // of two training rows
  EXPECT_FALSE(visits_rows_again(job, rows()));
  job.settings.max_steps = 3;
  EXPECT_TRUE(visits_rows_again(job, rows()));
}

}  // namespace
}  // namespace tailor::tune
