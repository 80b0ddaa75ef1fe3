// Batches of several servers at one store.

#include "serve/test_batches.h"

namespace tailor {
namespace {

using test::BatchApi;
using test::kCompletions;
using test::line;
using test::lines;

/// Of such requests, made and taken by that server.
std::string take_new(Store& server, const std::string& content, std::int64_t now) {
  const std::string file = server.files().add("in.jsonl", "batch", "", content).value().id;
  const NewBatch wanted{.owner = "",
                        .endpoint = kCompletions,
                        .input_file = file,
                        .completion_window = "24h",
                        .expires_at = now + 86'400};
  const std::string id = server.batches().create(wanted).value()->id;
  EXPECT_EQ(server.batches().take_next().value()->id, id);
  return id;
}

TEST_F(BatchApi, WhatAnotherServerLeftIsTakenUpWhenItEnds) {
  stop();
  auto other = other_server();
  const std::string id = take_new(*other, lines(3, 2), now_), leaving = take_new(*other, lines(3, 2), now_);
  start();
  wait_for(create(lines(1, 1)), "completed");
  EXPECT_EQ(look(id)["status"], "validating") << "it is the other's";
  other.reset();
  EXPECT_EQ(api_->post("/v1/batches/" + leaving + "/cancel", Json::object()).status, 200);
  EXPECT_EQ(wait_for(id, "completed")["request_counts"]["completed"], 3);
  wait_for(leaving, "cancelled");
}

TEST_F(BatchApi, ARecoveryThatFailedIsTriedAgain) {
  const auto change = [](Store& store, const char* sql) {
    Transaction transaction = store.database().write().value();
    transaction.run(sql).value();
    transaction.commit().value();
  };
  stop();
  std::string id;
  {
    const auto before = other_server();
    id = take_new(*before, lines(3, 2), now_);
    change(*before, "CREATE TRIGGER held BEFORE UPDATE ON batches BEGIN SELECT RAISE(ABORT, 'held for now'); END");
  }
  start();
  ASSERT_TRUE(test::eventually([&] { return log_.all().find("held for now") != std::string::npos; }));
  EXPECT_EQ(look(id)["status"], "validating");
  change(*store_, "DROP TRIGGER held");
  EXPECT_EQ(wait_for(id, "completed")["request_counts"]["completed"], 3);
}

TEST_F(BatchApi, OneWhoseModelsAnotherServerMayHaveIsLeftToIt) {
  const auto other = other_server();
  const std::string id = create(lines(2, 2, "elsewhere"));
  ASSERT_TRUE(test::eventually([&] { return log_.all().find(id + ": none of its models") != std::string::npos; }));
  const std::string wrong = create(lines(1, 2, "elsewhere") + "{}\n");
  EXPECT_EQ(wait_for(wrong, "failed")["errors"]["data"][0]["code"], "model_not_found") << "it is wrong for all";
  EXPECT_EQ(wait_for(create(lines(1, 2) + line("b", {{"model", "elsewhere"}})), "failed")["errors"]["data"][0]["line"],
            2)
      << "no server was meant that has the one and not the other";
  EXPECT_EQ(look(id)["status"], "validating");
  BatchStore& batches = other->batches();
  ASSERT_EQ(batches.take_next().value()->id, id);
  batches.move(id, BatchStatus::kInProgress, {.total = 2}).value();
  batches.move(id, BatchStatus::kFinalizing).value();
  batches.move(id, BatchStatus::kCompleted).value();
  wait_for(create(lines(1, 1)), "completed");
  EXPECT_EQ(look(id)["status"], "completed");
}

TEST_F(BatchApi, OneWhoseModelsNoServerHasFails) {
  stop();
  const auto other = other_server();
  auto third = other_server();
  const std::string id = take_new(*other, lines(2, 2, "elsewhere"), now_);
  ASSERT_TRUE(other->batches().give_back(id).value()) << "the third one may have them";
  third.reset();
  start();
  EXPECT_EQ(wait_for(id, "failed")["errors"]["data"][0]["code"], "model_not_found");
}

}  // namespace
}  // namespace tailor
