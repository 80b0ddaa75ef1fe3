// How a batch begins and ends in the store, where the disk has no room.

#include "serve/batch_work.h"

#include <algorithm>

#include "store/store_testing.h"

namespace tailor {
namespace {

constexpr std::size_t kLines = 40, kBytes = 80'000;  // together more than the disk below has

TEST(BatchWork, AFullDiskAtItsEndPutsNothingHalfInPlace) {
  TestStore store(64 << 20);
  ModelRegistry models;
  auto tiny = std::make_unique<ServedModel>();
  tiny->id = "tiny";
  models.put(std::move(tiny));
  NullLogger log;
  std::string input;
  std::vector<BatchAnswer> answers;
  for (std::size_t i = 0; i < kLines; ++i) {
    const std::string id = std::to_string(i);
    const Json body{{"model", "tiny"}, {"prompt", "x"}};
    input += dump_json({{"custom_id", id}, {"method", "POST"}, {"url", "/v1/completions"}, {"body", body}}) + "\n";
    answers.push_back({id, 200, "req-" + id, dump_json({{"text", std::string(kBytes, 'x')}})});
  }
  const NewBatch wanted{.owner = "k",
                        .endpoint = "/v1/completions",
                        .input_file = store->files().add("in", "batch", "k", input).value().id,
                        .completion_window = "24h",
                        .expires_at = store.now + 86'400};
  const std::string id = store->batches().create(wanted).value()->id;
  const auto work =
      BatchWork::open(store->batches().take_next().value().value(), *store.store, models, BatchInputLimits{}, log);
  ASSERT_TRUE(work->start && work->results);
  work->batch = store->batches().move(id, BatchStatus::kInProgress, *work->start).value();
  work->start.reset();
  work->results->add(answers).value();
  ASSERT_TRUE(work->is_over());
  const auto files = [&] { return store->files().list({}, "batch_output").value().data; };
  {
    const FullDisk full(2 << 20);  // enough for the database
    const Status refused = work->finish(*store.store, log);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, ErrorCode::kIo) << refused.error().message;
    EXPECT_EQ(store->batches().find(id).value().status, BatchStatus::kFinalizing);
    EXPECT_TRUE(files().empty());
    EXPECT_EQ(entries(store->directory().files()), 1U) << "the input alone";
    EXPECT_EQ(entries(store->directory().staging().parent_path()), 1U) << "the lock alone";
  }
  work->finish(*store.store, log).value();
  const Batch done = store->batches().find(id).value();
  EXPECT_EQ(done.status, BatchStatus::kCompleted);
  EXPECT_EQ(done.completed, static_cast<std::int64_t>(kLines));
  ASSERT_EQ(files().size(), 1U);
  EXPECT_EQ(files()[0].id, done.output_file);
  const std::string output = read_file(store->files().content(files()[0])).value();
  EXPECT_EQ(std::count(output.begin(), output.end(), '\n'), static_cast<std::ptrdiff_t>(kLines));
  EXPECT_FALSE(std::filesystem::exists(batch_directory(*store.store, id)));
  work->finish(*store.store, log).value();
  EXPECT_EQ(files().size(), 1U) << "once more changes nothing";
}

}  // namespace
}  // namespace tailor
