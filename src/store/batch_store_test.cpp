#include "store/batch_store.h"

#include "store/store_testing.h"

namespace tailor {
namespace {

NewBatch wanted(const std::string& owner = "key_a") {
  return {.owner = owner,
          .endpoint = "/v1/chat/completions",
          .input_file = "file-1",
          .completion_window = "24h",
          .expires_at = 1'700'086'400,
          .metadata = {{"project", "x"}}};
}

Batch create(Store& store, const std::string& owner = "key_a") {
  return store.batches().create(wanted(owner)).value().value();
}

TEST(BatchStore, GoesThroughItsLife) {
  TestStore store;
  const Batch made = create(*store.store);
  EXPECT_EQ(made.id.substr(0, 6), "batch_");
  ASSERT_EQ(store->batches().take_next().value()->id, made.id);
  EXPECT_EQ(store->batches().take_next().value(), std::nullopt) << "taken once";
  store.now += 5;
  store->batches().move(made.id, BatchStatus::kInProgress, {.total = 3, .model = "tiny"}).value();
  store->batches().set_progress(made.id, {.completed = 1}).value();
  EXPECT_EQ(store->batches()
                .set_progress(made.id, {.completed = 2, .failed = 1, .usage = {{"total_tokens", 7}}})
                .value()
                .status,
            BatchStatus::kInProgress);
  store->batches().move(made.id, BatchStatus::kFinalizing, {.output_file = "file-2", .error_file = "file-3"}).value();
  store->batches().move(made.id, BatchStatus::kCompleted).value();
  store.open();
  const Json object = batch_object(store->batches().find(made.id).value());
  EXPECT_EQ(object["object"], "batch");
  EXPECT_EQ(object["status"], "completed");
  EXPECT_EQ(object["created_at"], 1'700'000'000);
  EXPECT_EQ(object["in_progress_at"], 1'700'000'005);
  EXPECT_EQ(object["completed_at"], 1'700'000'005);
  EXPECT_TRUE(object["failed_at"].is_null());
  EXPECT_TRUE(object["errors"].is_null());
  EXPECT_EQ(object["output_file_id"], "file-2");
  EXPECT_EQ(object["error_file_id"], "file-3");
  EXPECT_EQ(dump_json(object["request_counts"]), R"({"total":3,"completed":2,"failed":1})");
  EXPECT_EQ(object["model"], "tiny");
  EXPECT_EQ(object["usage"]["total_tokens"], 7);
  EXPECT_EQ(object["metadata"]["project"], "x");
  EXPECT_FALSE(store->batches().set_progress(made.id, {.completed = 3})) << "finished";
  EXPECT_FALSE(store->batches().move(made.id, BatchStatus::kCancelling));
}

TEST(BatchStore, OnlyLegalChangesHappen) {
  const TestStore store;
  const std::string id = create(*store.store).id;
  EXPECT_FALSE(store->batches().move(id, BatchStatus::kCompleted));
  EXPECT_FALSE(store->batches().move(id, BatchStatus::kCancelled));
  store->batches().move(id, BatchStatus::kCancelling).value();
  const auto late = store->batches().move(id, BatchStatus::kInProgress);
  ASSERT_FALSE(late);
  EXPECT_NE(late.error().message.find("is cancelling; it cannot become in_progress"), std::string::npos);
  store->batches().move(id, BatchStatus::kCancelled).value();
  EXPECT_EQ(store->batches().move("batch_none", BatchStatus::kFailed).error().code, ErrorCode::kNotFound);
  const std::string failed = create(*store.store).id;
  const Json errors = Json::array({{{"code", "x"}, {"line", 1}, {"message", "m"}, {"param", nullptr}}});
  const Batch batch = store->batches().move(failed, BatchStatus::kFailed, {.errors = errors}).value();
  EXPECT_EQ(batch_object(batch)["errors"]["data"][0]["line"], 1);
}

TEST(BatchStore, BatchesOfADeadProcessGoOn) {
  const TemporaryDirectory dir;
  const auto root = dir.path() / "store";
  Child child([&](Child& parent) {
    const auto store = Store::open(root).value();
    for (const BatchStatus last : {BatchStatus::kInProgress, BatchStatus::kFinalizing, BatchStatus::kCancelling}) {
      const std::string id = create(*store).id;
      store->batches().take_next().value();
      store->batches().move(id, BatchStatus::kInProgress).value();
      store->batches().set_progress(id, {.completed = 1, .failed = 1}).value();
      if (last != BatchStatus::kInProgress) store->batches().move(id, last).value();
      parent.say(id);
    }
    parent.say(create(*store).id);
    parent.hear();
  });
  std::vector<std::string> ids;
  for (int i = 0; i < 4; ++i) ids.push_back(child.hear().value());
  const auto store = Store::open(root).value();
  EXPECT_TRUE(store->batches().recover().value().empty());
  child.kill();
  EXPECT_EQ(store->batches().recover().value(), (std::vector<std::string>{ids[0], ids[1], ids[2]}));
  const std::vector<BatchStatus> expected{BatchStatus::kInProgress, BatchStatus::kInProgress, BatchStatus::kCancelling,
                                          BatchStatus::kValidating};
  for (std::size_t i = 0; i < 4; ++i) {
    const Batch batch = store->batches().take_next().value().value();
    EXPECT_EQ(batch.id, ids[i]);
    EXPECT_EQ(batch.status, expected[i]);
    EXPECT_EQ(batch.completed, i < 3 ? 1 : 0) << "what was counted stays";
  }
  EXPECT_FALSE(store->batches().take_next().value());
}

TEST(BatchStore, OneCancelledBeforeAnybodyTookItIsTakenToBeEnded) {
  TestStore store;
  const std::string id = create(*store.store).id;
  store->batches().move(id, BatchStatus::kCancelling).value();
  EXPECT_EQ(store->batches().take_next().value().value().id, id);
}

TEST(BatchStore, WhatIsOnlyToBeEndedIsTakenFirst) {
  TestStore store;
  const std::string first = create(*store.store).id, cancelled = create(*store.store).id;
  NewBatch soon = wanted();
  soon.expires_at = store.now + 60;
  const std::string expiring = store->batches().create(soon).value()->id;
  EXPECT_EQ(store->batches().take_ending(store.now + 59).value(), std::nullopt);
  store->batches().move(cancelled, BatchStatus::kCancelling).value();
  EXPECT_EQ(store->batches().take_ending(store.now + 59).value()->id, cancelled);
  EXPECT_EQ(store->batches().take_ending(store.now + 59).value(), std::nullopt) << "taken once";
  const Batch taken = store->batches().take_ending(store.now + 60).value().value();
  EXPECT_EQ(taken.id, expiring);
  EXPECT_EQ(taken.status, BatchStatus::kValidating);
  EXPECT_EQ(store->batches().take_next().value()->id, first);
  store->batches().move(expiring, BatchStatus::kExpired, {.total = 3}).value();
  EXPECT_EQ(store->batches().take_ending(store.now + 60).value(), std::nullopt) << "it has ended";
}

TEST(BatchStore, TheOwnerWithTheFewestInWorkIsNext) {
  const TestStore store;
  const auto taken = [&](bool of_idle_owner = false) {
    const auto batch = store->batches().take_next(of_idle_owner).value();
    return batch ? batch->id : "";
  };
  const std::string first = create(*store.store, "a").id, second = create(*store.store, "a").id;
  const std::string third = create(*store.store, "a").id, other = create(*store.store, "b").id;
  EXPECT_EQ(taken(), first);
  EXPECT_EQ(taken(true), other);
  EXPECT_EQ(taken(true), "") << "both have one";
  EXPECT_EQ(taken(), second);
  const std::string late = create(*store.store, "b").id;
  EXPECT_EQ(taken(), late);
  for (const std::string& id : {first, second}) store->batches().move(id, BatchStatus::kFailed).value();
  EXPECT_EQ(taken(true), third) << "what has ended counts for nobody";
}

TEST(BatchStore, WhatIsGivenBackIsForOthers) {
  TestStore store;
  const auto other = Store::open(store->directory().root(), {.clock = [&] { return store.now; }}).value();
  const std::string id = create(*store.store).id;
  EXPECT_FALSE(store->batches().give_back(id)) << "it is nobody's";
  ASSERT_TRUE(store->batches().take_next().value());
  EXPECT_TRUE(store->batches().give_back(id).value());
  EXPECT_FALSE(store->batches().take_next().value());
  ASSERT_EQ(other->batches().take_next().value()->id, id);
  EXPECT_FALSE(other->batches().give_back(id).value()) << "the first one does not want it";
  EXPECT_FALSE(store->batches().take_next().value()) << "it stays the other's";
  store.now += 181;
  EXPECT_TRUE(other->batches().give_back(id).value()) << "that was long ago";
  ASSERT_EQ(store->batches().take_next().value()->id, id);
  EXPECT_FALSE(store->batches().give_back(id).value());
  store->batches().move(id, BatchStatus::kFailed).value();
}

TEST(BatchStore, ALoneSessionGivesNothingBack) {
  TestStore store;
  const std::string id = create(*store.store).id;
  ASSERT_TRUE(store->batches().take_next().value());
  EXPECT_FALSE(store->batches().give_back(id).value());
}

TEST(BatchStore, AnOwnerHasOnlySoManyUnfinishedOnes) {
  const TestStore store;
  const auto made = [&](const std::string& owner) {
    NewBatch batch = wanted(owner);
    batch.most_unfinished = 2;
    return store->batches().create(batch).value();
  };
  const std::string first = made("a").value().id;
  EXPECT_TRUE(made("a"));
  EXPECT_FALSE(made("a"));
  EXPECT_TRUE(made("b")) << "another's";
  EXPECT_TRUE(made("")) << "nobody's";
  EXPECT_EQ(store->batches().list({.owner = "a"}).value().data.size(), 2U);
  store->batches().move(first, BatchStatus::kCancelling).value();
  EXPECT_FALSE(made("a")) << "it has not ended yet";
  store->batches().move(first, BatchStatus::kCancelled).value();
  EXPECT_TRUE(made("a"));
}

TEST(BatchStore, RefusesLargeMetadataAndListsByOwner) {
  const TestStore store;
  NewBatch large = wanted(), control = wanted();
  large.metadata = {{"x", std::string(20000, 'x')}};
  control.endpoint = "a\nb";
  EXPECT_FALSE(store->batches().create(large));
  EXPECT_FALSE(store->batches().create(control));
  create(*store.store, "a");
  create(*store.store, "b");
  EXPECT_EQ(store->batches().list({.owner = "b"}).value().data.size(), 1U);
  EXPECT_EQ(store->batches().list({}).value().data.size(), 2U);
}

}  // namespace
}  // namespace tailor
