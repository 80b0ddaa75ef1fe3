#include "store/job_store.h"

#include <atomic>
#include <set>
#include <thread>

#include "store/schema.h"
#include "store/store_testing.h"

namespace tailor {
namespace {

const std::vector<JobStatus> kAll = {JobStatus::kValidatingFiles, JobStatus::kQueued,    JobStatus::kRunning,
                                     JobStatus::kPaused,          JobStatus::kSucceeded, JobStatus::kFailed,
                                     JobStatus::kCancelled};

Json request() {
  return {{"model", "smollm2"}, {"training_file", "file-1"}, {"seed", 7}, {"suffix", "mine"}};
}

/// A new job of an owner.
Job made(const TestStore& store, const std::string& owner = "key_a", const Json& wish = request()) {
  return store->jobs().create({.owner = owner, .request = wish}).value().value();
}

std::string queued(const TestStore& store) {
  const std::string id = made(store).id;
  store->jobs().move(id, JobStatus::kValidatingFiles, JobStatus::kQueued).value();
  return id;
}

/// Drives a new job to a state.
std::string job_in(const TestStore& store, JobStatus status) {
  JobStore& jobs = store->jobs();
  const std::string id = made(store).id;
  if (status == JobStatus::kValidatingFiles) return id;
  jobs.move(id, JobStatus::kQueued).value();
  if (status == JobStatus::kQueued) return id;
  jobs.move(id, JobStatus::kRunning).value();
  if (status != JobStatus::kRunning) jobs.move(id, status).value();
  return id;
}

TEST(JobStore, GoesThroughItsLife) {
  TestStore store;
  Job job = made(store);
  EXPECT_EQ(job.id.substr(0, 6), "ftjob-");
  EXPECT_EQ(job.status, JobStatus::kValidatingFiles);
  EXPECT_EQ(job.request, request());
  store.now += 10;
  store->jobs().move(job.id, JobStatus::kValidatingFiles, JobStatus::kQueued).value();
  job = store->jobs().start_next().value().value();
  EXPECT_EQ(job.status, JobStatus::kRunning);
  EXPECT_EQ(job.started_at, store.now);
  EXPECT_EQ(job.attempts, 1);
  store->jobs().update_result(job.id, {{"trained_tokens", 5}, {"estimated_finish", 9}}).value();
  store.now += 10;
  const JobEvent event{.message = "The job has successfully completed"};
  store->jobs()
      .move(job.id, JobStatus::kRunning, JobStatus::kSucceeded,
            {.result = {{"fine_tuned_model", "ft:smollm2::mine:1"}, {"trained_tokens", 50}}, .event = event})
      .value();
  store.open();
  job = store->jobs().find(job.id).value();
  EXPECT_EQ(job.status, JobStatus::kSucceeded);
  EXPECT_EQ(job.finished_at, store.now);
  EXPECT_EQ(job.started_at, store.now - 10);
  EXPECT_EQ(job.result["trained_tokens"], 50);
  EXPECT_EQ(job.result["estimated_finish"], 9);
  EXPECT_EQ(store->jobs().events(job.id, {}).value().data[0].message, event.message);
  EXPECT_EQ(store->jobs().start_next().value(), std::nullopt);
}

TEST(JobStore, OnlyLegalChangesHappen) {
  const TestStore store;
  for (const JobStatus from : kAll) {
    for (const JobStatus to : kAll) {
      const std::string id = job_in(store, from);
      const auto moved = store->jobs().move(id, to);
      EXPECT_EQ(moved.has_value(), can_follow(from, to)) << to_string(from) << " -> " << to_string(to);
      EXPECT_EQ(store->jobs().find(id).value().status, moved ? to : from);
      if (moved) continue;
      EXPECT_EQ(moved.error().code, ErrorCode::kInvalidArgument);
      EXPECT_NE(moved.error().message.find(to_string(from)), std::string::npos);
    }
  }
  // The table by hand, where can_follow() must not be believed.
  EXPECT_TRUE(can_follow(JobStatus::kRunning, JobStatus::kPaused));
  EXPECT_TRUE(can_follow(JobStatus::kPaused, JobStatus::kQueued));
  EXPECT_TRUE(can_follow(JobStatus::kRunning, JobStatus::kQueued));
  EXPECT_FALSE(can_follow(JobStatus::kPaused, JobStatus::kRunning));
  EXPECT_FALSE(can_follow(JobStatus::kValidatingFiles, JobStatus::kRunning));
  EXPECT_FALSE(can_follow(JobStatus::kQueued, JobStatus::kSucceeded));
  for (const JobStatus final : {JobStatus::kSucceeded, JobStatus::kFailed, JobStatus::kCancelled})
    for (const JobStatus to : kAll) EXPECT_FALSE(can_follow(final, to));
}

TEST(JobStore, AChangeFromAnotherStateDoesNotHappen) {
  const TestStore store;
  const std::string id = queued(store);
  store->jobs().move(id, JobStatus::kCancelled).value();
  const auto late = store->jobs().move(id, JobStatus::kQueued, JobStatus::kRunning);
  ASSERT_FALSE(late);
  EXPECT_NE(late.error().message.find("is cancelled, not queued"), std::string::npos);
  EXPECT_EQ(store->jobs().move("ftjob-none", JobStatus::kQueued).error().code, ErrorCode::kNotFound);
}

TEST(JobStore, AFinishedJobIsNeverChangedOrLost) {
  const TestStore store;
  const std::string id = job_in(store, JobStatus::kFailed);
  EXPECT_FALSE(store->jobs().update_result(id, {{"a", 1}}));
  EXPECT_FALSE(store->jobs().add_event(id, {.message = "late"}));
  EXPECT_FALSE(store->jobs().add_checkpoint(id, 1, "m", {}));
  Transaction transaction = store->database().write().value();
  EXPECT_FALSE(transaction.run("UPDATE jobs SET status = 'running' WHERE id = ?", {id}));
  EXPECT_FALSE(transaction.run("DELETE FROM jobs WHERE id = ?", {id}));
}

TEST(JobStore, AnEventOfAChangeThatDoesNotHappenIsNotWritten) {
  const TestStore store;
  const std::string id = queued(store);
  const JobEvent bad{.level = "fatal", .message = "x"};
  EXPECT_FALSE(store->jobs().move(id, JobStatus::kCancelled, {.event = bad}));
  EXPECT_EQ(store->jobs().find(id).value().status, JobStatus::kQueued);
  EXPECT_FALSE(store->jobs().move(id, JobStatus::kSucceeded, {.event = JobEvent{.message = "x"}}));
  EXPECT_TRUE(store->jobs().events(id, {}).value().data.empty());
}

TEST(JobStore, TheObjectIsThatOfTheApi) {
  const TestStore store;
  const std::string id = queued(store);
  const Job job =
      store->jobs()
          .move(id, JobStatus::kFailed, {.error = JobError{"invalid_training_file", "line 3", "training_file"}})
          .value();
  const Json object = job_object(job);
  for (const char* field :
       {"id", "object", "created_at", "error", "finished_at", "fine_tuned_model", "hyperparameters", "model",
        "organization_id", "result_files", "status", "trained_tokens", "training_file", "validation_file", "seed"})
    EXPECT_TRUE(object.contains(field)) << field;
  EXPECT_EQ(object["object"], "fine_tuning.job");
  EXPECT_EQ(object["status"], "failed");
  EXPECT_EQ(object["model"], "smollm2");
  EXPECT_EQ(object["seed"], 7);
  EXPECT_EQ(object["suffix"], "mine");
  EXPECT_TRUE(object["fine_tuned_model"].is_null());
  EXPECT_EQ(object["error"]["code"], "invalid_training_file");
  EXPECT_EQ(object["error"]["param"], "training_file");
}

TEST(JobStore, AnEndIsEstimatedWhileAJobRunsAndNoLonger) {
  const TestStore store;
  const std::string id = queued(store);
  const auto shown = [&] { return job_object(store->jobs().find(id).value())["estimated_finish"]; };
  store->jobs().start_next().value();
  store->jobs().update_result(id, {{"estimated_finish", 9}}).value();
  EXPECT_EQ(shown(), 9);
  for (const JobStatus status : {JobStatus::kPaused, JobStatus::kQueued}) {
    store->jobs().move(id, status).value();
    EXPECT_TRUE(shown().is_null()) << to_string(status);
  }
  store->jobs().start_next().value();
  EXPECT_TRUE(shown().is_null()) << "that of the attempt before";
  store->jobs().update_result(id, {{"estimated_finish", 9}}).value();
  store->jobs().move(id, JobStatus::kFailed).value();
  EXPECT_TRUE(shown().is_null());
}

TEST(JobStore, AJobAndItsFirstEventsAreWrittenInOneMoment) {
  const TestStore store;
  NewJob wanted{.owner = "k", .request = request()};
  wanted.events = [](const std::string& id) -> std::vector<JobEvent> { return {{.message = id}, {.message = "b"}}; };
  const std::string id = store->jobs().create(wanted).value().value().id;
  const auto events = store->jobs().events(id, {.newest_first = false}).value().data;
  ASSERT_EQ(events.size(), 2U);
  EXPECT_EQ(events[0].message, id);
  EXPECT_EQ(events[1].message, "b");
  wanted.events = [](const std::string&) -> std::vector<JobEvent> { return {{.message = "a"}, {.level = "fatal"}}; };
  EXPECT_FALSE(store->jobs().create(wanted));
  EXPECT_EQ(store->jobs().list({}).value().data.size(), 1U);
}

TEST(JobStore, OnlySoManyOfAnOwnerMayBeUnfinished) {
  const TestStore store;
  const auto is_taken = [&](const std::string& owner) {
    return store->jobs().create({.owner = owner, .request = request(), .most_unfinished = 4}).value().has_value();
  };
  for (const JobStatus status : kAll) job_in(store, status);  // four of them unfinished
  EXPECT_FALSE(is_taken("key_a"));
  EXPECT_TRUE(is_taken("key_b"));
  store->jobs().move(store->jobs().start_next().value().value().id, JobStatus::kSucceeded).value();
  EXPECT_TRUE(is_taken("key_a"));
  EXPECT_FALSE(is_taken("key_a"));
}

TEST(JobStore, TheFirstThatIsWantedStarts) {
  const TestStore store;
  const std::string first = queued(store), second = queued(store), third = queued(store);
  std::vector<std::string> asked;
  const auto only = [&](const std::string& id) {
    return [&asked, id](const Job& job) {
      asked.push_back(job.id);
      return job.id == id;
    };
  };
  EXPECT_EQ(store->jobs().start_next(only("none")).value(), std::nullopt);
  EXPECT_EQ(asked, (std::vector<std::string>{first, second, third})) << "in their order";
  EXPECT_EQ(store->jobs().start_next(only(second)).value().value().id, second);
  EXPECT_EQ(asked.back(), second) << "of the one that starts at last";
  EXPECT_EQ(store->jobs().find(first).value().status, JobStatus::kQueued);
  EXPECT_EQ(store->jobs().start_next().value().value().id, first);
}

TEST(JobStore, FilesAreCheckedByTheSessionThatTookTheJobOrByAnotherOnceThatIsDead) {
  const TestStore store;
  auto other = Store::open(store.dir.path() / "store").value();
  const std::string theirs = other->jobs().create({.request = request()}).value().value().id;
  const std::string ours = made(store).id;
  queued(store);
  const auto ids = [](Store& who) {
    std::vector<std::string> out;
    for (const Job& job : who.jobs().unchecked().value()) out.push_back(job.id);
    return out;
  };
  EXPECT_EQ(ids(*store.store), std::vector<std::string>{ours});
  EXPECT_EQ(ids(*other), std::vector<std::string>{theirs});
  other.reset();
  EXPECT_EQ(ids(*store.store), (std::vector<std::string>{theirs, ours}));
}

TEST(JobStore, ALookThatFindsNothingWritesNothing) {
  const TestStore store;
  job_in(store, JobStatus::kPaused);
  queued(store);
  store->jobs().start_next().value();
  const Database other = Database::open(store->directory().database(), store_migrations()).value();
  const Transaction held = other.write().value();
  EXPECT_TRUE(store->jobs().recover().has_value());
  EXPECT_TRUE(store->jobs().start_next().has_value());
}

TEST(JobStore, WhatNobodyAskedForIsTheUsual) {
  const TestStore store;
  const Json object = job_object(made(store, "k", {{"model", "a"}, {"training_file", "file-1"}}));
  EXPECT_EQ(object["seed"], 1) << "with which jobs of versions that kept none trained";
  EXPECT_EQ(object["hyperparameters"],
            Json({{"n_epochs", "auto"}, {"batch_size", "auto"}, {"learning_rate_multiplier", "auto"}}));
  EXPECT_EQ(object["method"]["type"], "supervised");
}

TEST(JobStore, EventsHaveIncreasingNumbersAndPages) {
  const TestStore store;
  const std::string id = queued(store), other = queued(store);
  std::vector<std::string> ids;
  for (int i = 0; i < 5; ++i) {
    ids.push_back(
        store->jobs().add_event(id, {.message = std::to_string(i), .type = "metrics", .data = {{"step", i}}}).value());
    store->jobs().add_event(other, {.message = "other"}).value();
  }
  EXPECT_TRUE(std::is_sorted(ids.begin(), ids.end()));
  const auto list = [&](const PageQuery& query) {
    const Page<JobEvent> page = store->jobs().events(id, query).value();
    std::string found;
    for (const JobEvent& event : page.data) found += event.message;
    return found + (page.has_more ? "+" : "");
  };
  EXPECT_EQ(list({}), "43210");
  EXPECT_EQ(list({.limit = 2}), "43+");
  EXPECT_EQ(list({.after = ids[3], .limit = 2}), "21+");
  EXPECT_EQ(list({.after = ids[2], .newest_first = false}), "34");
  EXPECT_FALSE(store->jobs().events(id, {.after = "ftevent-9999999999999999"}));
  EXPECT_FALSE(store->jobs().events(id, {.after = "x' OR 1 = 1 --"}));
  EXPECT_EQ(store->jobs().events("ftjob-none", {}).error().code, ErrorCode::kNotFound);
  const Json object = job_event_object(store->jobs().events(id, {}).value().data[0]);
  EXPECT_EQ(object["object"], "fine_tuning.job.event");
  EXPECT_EQ(object["id"], ids[4]);
  EXPECT_EQ(object["data"]["step"], 4);
}

TEST(JobStore, AnEventThatIsWrittenLateTellsWhenItHappened) {
  const TestStore store;
  const std::string id = queued(store);
  store->jobs().add_event(id, {.created_at = store.now - 60, .message = "late"}).value();
  store->jobs().add_event(id, {.message = "now"}).value();
  const auto events = store->jobs().events(id, {.newest_first = false}).value().data;
  ASSERT_EQ(events.size(), 2U);
  EXPECT_EQ(events[0].created_at, store.now - 60);
  EXPECT_EQ(events[1].created_at, store.now);
}

TEST(JobStore, LimitsWhatAnEventHolds) {
  const TestStore store;
  const std::string id = queued(store);
  EXPECT_FALSE(store->jobs().add_event(id, {.message = std::string(9000, 'x')}));
  EXPECT_FALSE(store->jobs().add_event(id, {.message = "x", .data = {{"x", std::string(70000, 'x')}}}));
  EXPECT_FALSE(store->jobs().add_event(id, {.message = "x", .type = "poem"}));
  EXPECT_FALSE(store->jobs().create({.request = {{"x", std::string(2 << 20, 'x')}}}));
  EXPECT_FALSE(store->jobs().create({.request = Json::array()}));
}

TEST(JobStore, TakesNothingThatCouldNotBeReadAgain) {
  const TestStore store;
  Json deep = 1;
  for (int i = 0; i < 100; ++i) deep = Json::array({deep});
  const std::string id = job_in(store, JobStatus::kRunning);
  EXPECT_FALSE(store->jobs().create({.request = {{"x", deep}}}));
  EXPECT_FALSE(store->jobs().update_result(id, {{"x", deep}}));
  EXPECT_FALSE(store->jobs().move(id, JobStatus::kSucceeded, {.result = {{"x", deep}}}));
  EXPECT_FALSE(store->jobs().add_event(id, {.message = "x", .data = {{"x", deep}}}));
  EXPECT_FALSE(store->jobs().add_checkpoint(id, 1, "m", {{"x", deep}}));
  EXPECT_EQ(store->jobs().find(id).value().status, JobStatus::kRunning);
  EXPECT_TRUE(store->jobs().add_event(id, {.message = "\xFF", .data = {{"x", "\xFF"}}})) << "bytes become U+FFFD";
  EXPECT_EQ(dump_json(job_event_object(store->jobs().events(id, {}).value().data[0])["data"]), "{\"x\":\"\uFFFD\"}");
}

TEST(JobStore, ACheckpointOfAStepIsWrittenOver) {
  const TestStore store;
  const std::string id = job_in(store, JobStatus::kRunning);
  const JobCheckpoint first = store->jobs().add_checkpoint(id, 10, "m:ckpt-step-10", {{"train_loss", 2.0}}).value();
  const JobCheckpoint again = store->jobs().add_checkpoint(id, 10, "m:ckpt-step-10", {{"train_loss", 1.5}}).value();
  store->jobs().add_checkpoint(id, 20, "m:ckpt-step-20", {{"train_loss", 1.0}}).value();
  EXPECT_EQ(first.id, again.id);
  const Page<JobCheckpoint> page = store->jobs().checkpoints(id, {}).value();
  ASSERT_EQ(page.data.size(), 2U);
  EXPECT_EQ(page.data[0].step, 20);
  const Json object = job_checkpoint_object(page.data[1]);
  EXPECT_EQ(object["object"], "fine_tuning.job.checkpoint");
  EXPECT_EQ(object["metrics"]["train_loss"], 1.5);
  EXPECT_EQ(object["metrics"]["step"], 10);
  EXPECT_EQ(object["fine_tuning_job_id"], id);
}

TEST(JobStore, JobsOfADeadProcessAreQueuedAgain) {
  const TemporaryDirectory dir;
  const auto root = dir.path() / "store";
  std::string running;
  {
    Child child([&](Child& parent) {
      const auto store = Store::open(root).value();
      const std::string id = store->jobs().create({.request = request()}).value().value().id;
      store->jobs().move(id, JobStatus::kQueued).value();
      store->jobs().start_next().value();
      parent.say(id);
      parent.hear();
    });
    running = child.hear().value();
    const auto store = Store::open(root).value();
    EXPECT_TRUE(store->jobs().recover().value().empty()) << "its process is alive";
    child.kill();
    EXPECT_EQ(store->jobs().recover().value(), std::vector<std::string>{running});
    EXPECT_TRUE(store->jobs().recover().value().empty());
    const Job job = store->jobs().start_next().value().value();
    EXPECT_EQ(job.id, running);
    EXPECT_EQ(job.attempts, 2);
    EXPECT_TRUE(store->jobs().recover().value().empty()) << "it runs here now";
    EXPECT_EQ(store->jobs().events(running, {}).value().data[0].level, "warn");
  }
}

TEST(JobStore, OneThatWasPausedAsItRanStartsElsewhereWhenItIsLetGo) {
  const TestStore store;
  auto other = Store::open(store.dir.path() / "store").value();
  const std::string id = queued(store);
  const auto queue_again = [&] {
    other->jobs().move(id, JobStatus::kPaused).value();
    other->jobs().move(id, JobStatus::kQueued).value();
  };
  const auto starts = [&](Store& at) { return at.jobs().start_next().value().has_value(); };
  EXPECT_TRUE(starts(*store.store));
  queue_again();
  EXPECT_FALSE(starts(*other));
  other->jobs().let_go(id).value();
  EXPECT_FALSE(starts(*other)) << "it is not theirs to let go of";
  store->jobs().let_go(id).value();
  EXPECT_TRUE(starts(*other));
  other->jobs().let_go(id).value();
  EXPECT_EQ(store->jobs().find(id).value().status, JobStatus::kRunning);
  EXPECT_TRUE(store->jobs().recover().value().empty()) << "a running one is kept";
  queue_again();
  EXPECT_FALSE(starts(*store.store));
  other.reset();
  EXPECT_TRUE(starts(*store.store)) << "its process is dead";
}

TEST(JobStore, ThreadsStartEachJobOnce) {
  const TestStore store;
  for (int i = 0; i < 40; ++i) queued(store);
  std::vector<std::thread> threads;
  std::array<std::vector<std::string>, 4> started;
  for (std::vector<std::string>& mine : started) {
    threads.emplace_back([&] {
      while (const auto job = store->jobs().start_next().value()) mine.push_back(job->id);
    });
  }
  for (std::thread& thread : threads) thread.join();
  std::set<std::string> all;
  for (const auto& mine : started) all.insert(mine.begin(), mine.end());
  EXPECT_EQ(all.size(), 40U);
  EXPECT_EQ(started[0].size() + started[1].size() + started[2].size() + started[3].size(), 40U);
}

TEST(JobStore, AModelIsDeletedOnceAndItsJobStays) {
  TestStore store;
  const std::string name = "ft:smollm2:tailor:mine:1";
  const std::string id = job_in(store, JobStatus::kRunning);
  store->jobs().update_result(id, {{"fine_tuned_model", name}}).value();
  EXPECT_FALSE(store->jobs().find_by_model(name)) << "it may still fail";
  EXPECT_EQ(store->jobs().remove_model(id, "key_a").error().code, ErrorCode::kNotFound);
  store->jobs().move(id, JobStatus::kSucceeded).value();
  const std::string without = job_in(store, JobStatus::kSucceeded);
  EXPECT_EQ(store->jobs().find_by_model(name).value().id, id);
  EXPECT_EQ(store->jobs().find_by_model("").error().code, ErrorCode::kNotFound);
  EXPECT_FALSE(store->jobs().model_removed(id).value());
  store->jobs().remove_model(id, "key_a").value();
  store.open();
  EXPECT_TRUE(store->jobs().model_removed(id).value());
  EXPECT_EQ(store->jobs().find_by_model(name).error().code, ErrorCode::kNotFound);
  EXPECT_EQ(job_object(store->jobs().find(id).value())["fine_tuned_model"], name);
  EXPECT_EQ(store->jobs().remove_model(id, "key_a").error().code, ErrorCode::kNotFound) << "deleted already";
  EXPECT_EQ(store->jobs().remove_model(without, "key_a").error().code, ErrorCode::kNotFound) << "it names no model";
  EXPECT_EQ(store->jobs().remove_model("ftjob-none", "key_a").error().code, ErrorCode::kNotFound);
  const auto entries = store->audit().entries(0, 10).value();
  ASSERT_EQ(entries.size(), 1U) << "of what was done alone";
  EXPECT_EQ(entries[0].entry.actor, "key_a");
  EXPECT_EQ(entries[0].entry.action, "model.delete");
  EXPECT_EQ(entries[0].entry.object, name);
  EXPECT_EQ(entries[0].entry.details["job"], id);
  EXPECT_TRUE(store->audit().verify().value().intact);
}

TEST(JobStore, ListsByOwner) {
  const TestStore store;
  for (const char* owner : {"a", "b", "a"}) made(store, owner);
  EXPECT_EQ(store->jobs().list({}).value().data.size(), 3U);
  EXPECT_EQ(store->jobs().list({.owner = "a"}).value().data.size(), 2U);
  EXPECT_TRUE(store->jobs().list({.limit = 1, .owner = "a"}).value().has_more);
}

}  // namespace
}  // namespace tailor
