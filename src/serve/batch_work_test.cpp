// How a batch begins and ends in the store, where the disk has no room.

#include "serve/batch_work.h"

#include <algorithm>
#include <fstream>
#include <optional>

#include "store/store_testing.h"

namespace tailor {
namespace {

bool any_model(const std::string&) {
  return true;
}

/// A batch of which all is answered, with so many bytes of each of 40 answers, and that is only to be put in place.
struct Answered {
  static constexpr std::size_t kLines = 40;

  Answered(std::int64_t most_file_bytes, std::size_t answer_bytes) : store(most_file_bytes) {
    std::string input;
    std::vector<BatchAnswer> answers;
    for (std::size_t i = 0; i < kLines; ++i) {
      const std::string name = std::to_string(i);
      const Json body{{"model", "tiny"}, {"prompt", "x"}};
      input += dump_json({{"custom_id", name}, {"method", "POST"}, {"url", "/v1/completions"}, {"body", body}}) + "\n";
      answers.push_back({name, 200, "req-" + name, dump_json({{"text", std::string(answer_bytes, 'x')}})});
    }
    const NewBatch wanted{.owner = "k",
                          .endpoint = "/v1/completions",
                          .input_file = store->files().add("in", "batch", "k", input).value().id,
                          .completion_window = "24h",
                          .expires_at = store.now + 86'400};
    id = store->batches().create(wanted).value()->id;
    work = BatchWork::open(store->batches().take_next().value().value(), *store.store, any_model, {}, log);
    work->batch = store->batches().move(id, BatchStatus::kInProgress, work->start.value()).value();
    work->start.reset();
    work->results->add(answers).value();
    EXPECT_TRUE(work->is_over());
  }
  std::vector<FileRecord> outputs() { return store->files().list({}, "batch_output").value().data; }
  void expect_done() {
    const Batch done = store->batches().find(id).value();
    EXPECT_EQ(done.status, BatchStatus::kCompleted);
    EXPECT_EQ(done.completed, static_cast<std::int64_t>(kLines));
    ASSERT_EQ(outputs().size(), 1U);
    EXPECT_EQ(outputs()[0].id, done.output_file);
    const std::string output = read_file(store->files().content(outputs()[0])).value();
    EXPECT_EQ(std::count(output.begin(), output.end(), '\n'), static_cast<std::ptrdiff_t>(kLines));
    EXPECT_FALSE(std::filesystem::exists(batch_directory(*store.store, id)));
  }

  TestStore store;
  NullLogger log;
  std::string id;
  std::unique_ptr<BatchWork> work;
};

TEST(BatchWork, AFullDiskAtItsEndPutsNothingHalfInPlace) {
  Answered batch(64 << 20, 80'000);
  {
    const FullDisk full(2 << 20);  // enough for the database, and less than its answers have
    const Status refused = batch.work->finish(*batch.store.store, batch.log);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, ErrorCode::kIo) << refused.error().message;
    EXPECT_EQ(batch.store->batches().find(batch.id).value().status, BatchStatus::kFinalizing);
    EXPECT_TRUE(batch.outputs().empty());
    EXPECT_EQ(entries(batch.store->directory().files()), 1U) << "the input alone";
    EXPECT_EQ(entries(batch.store->directory().staging().parent_path()), 1U) << "the lock alone";
  }
  batch.work->finish(*batch.store.store, batch.log).value();
  batch.expect_done();
  batch.work->finish(*batch.store.store, batch.log).value();
  EXPECT_EQ(batch.outputs().size(), 1U) << "once more changes nothing";
}

/// Bytes that this process has handed over to be written, to whatever file; nothing where the system does not tell.
std::optional<std::int64_t> bytes_written() {
  std::ifstream told("/proc/self/io");
  std::string word;
  while (told >> word && word != "wchar:") {
  }
  std::int64_t bytes = 0;
  if (told >> bytes) return bytes;
  return std::nullopt;
}

TEST(BatchWork, AtAFullDiskATryCopiesNothing) {
  if (!bytes_written()) GTEST_SKIP() << "no /proc/self/io here";
  Answered batch(64 << 20, 80'000);
  for (int attempt = 0; attempt < 3; ++attempt) {
    const FullDisk full(2 << 20);
    const std::int64_t begin = bytes_written().value();
    ASSERT_FALSE(batch.work->finish(*batch.store.store, batch.log));
    EXPECT_LT(bytes_written().value() - begin, 1 << 20) << "3.2 MB are to be put in place";
  }
  batch.work->finish(*batch.store.store, batch.log).value();
  batch.expect_done();
}

TEST(BatchWork, AnOutputLargerThanAnUploadMayBeIsPutInPlace) {
  Answered batch(1 << 20, 80'000);
  batch.work->finish(*batch.store.store, batch.log).value();
  batch.expect_done();
  EXPECT_GT(batch.outputs()[0].bytes, 1 << 20);
}

TEST(BatchWork, OneThatIsGivenUpHasFailedAndItsAnswersStay) {
  Answered batch(1 << 20, 10);
  batch.work->give_up(*batch.store.store).value();
  const Batch failed = batch.store->batches().find(batch.id).value();
  EXPECT_EQ(failed.status, BatchStatus::kFailed);
  EXPECT_EQ(failed.errors[0]["code"], "storage_error");
  EXPECT_TRUE(std::filesystem::exists(batch_directory(*batch.store.store, batch.id) / "output.jsonl"));
}

}  // namespace
}  // namespace tailor
