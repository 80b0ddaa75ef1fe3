// Fine-tuning jobs of several servers at one store.

#include <optional>

#include "serve/test_jobs.h"

namespace tailor {
namespace {

using test::DoubleTuner;
using test::FineTuningApi;
using test::Given;

/// Another server at the store. It trains what it serves.
struct Other {
  Other(const std::filesystem::path& directory, std::chrono::milliseconds look_every, bool with_model)
      : store(Store::open(directory).value()) {
    load.share = std::make_shared<ComputeShare>(1);
    load.cache_bytes = std::uint64_t{64} << 20;
    if (with_model) models.put(serve_base_model(testing::tiny_llama().string(), "tiny", load).value());
    tuning.emplace(*store, models, tuner, load, log, look_every);
  }
  std::unique_ptr<Store> store;
  ModelLoadOptions load;
  ModelRegistry models;
  DoubleTuner tuner;
  NullLogger log;
  std::optional<FineTuning> tuning;
};

/// A server that looks often trains `id`, until it hears otherwise.
class FineTuningServers : public FineTuningApi {
 protected:
  void SetUp() override {
    look_every_ = std::chrono::milliseconds(1);
    start();
    tuner_.go = false;
    id_ = job();
    ASSERT_TRUE(tuner_.begun.wait());
    write_checkpoint(id_);
  }
  Other other(std::chrono::milliseconds look_every = std::chrono::hours(1), bool with_model = false) {
    return {dir_.path() / "store", look_every, with_model};
  }
  std::string id_;
};

TEST_F(FineTuningServers, AJobThatAnotherServerCancelsEndsHereAndNothingOfItStays) {
  Other there = other();
  EXPECT_EQ(there.tuning->cancel(id_).value().status, JobStatus::kCancelled);
  EXPECT_TRUE(test::eventually(
      [&] { return !std::filesystem::exists(run_of(id_)) && !std::filesystem::exists(data_of(id_)); }));
  tuner_.go = true;
  wait_for(job(), "succeeded");
  EXPECT_EQ(look(id_)["status"], "cancelled");
}

TEST_F(FineTuningServers, AJobThatAnotherServerPausesStopsHereAndCanGoOn) {
  Other there = other();
  EXPECT_EQ(there.tuning->pause(id_).value().status, JobStatus::kPaused);
  const std::string next = job();
  wait_for(next, "running");
  EXPECT_EQ(look(id_)["status"], "paused");
  EXPECT_TRUE(std::filesystem::exists(run_of(id_) / "train" / "checkpoint" / "state.safetensors"));
  there.tuning->resume(id_).value();
  tuner_.go = true;
  wait_for(next, "succeeded");
  wait_for(id_, "succeeded");
  ASSERT_EQ(tuner_.specs.size(), 3U);
  EXPECT_EQ(tuner_.specs[2].run, tuner_.specs[0].run);
}

TEST_F(FineTuningServers, AJobThatIsResumedElsewhereBeginsThereWhenItHasStoppedHere) {
  Given seat;
  tuning_->share(seat);  // it begins nothing more
  Other there = other(std::chrono::milliseconds(1), true);
  std::atomic<int> still_here{-1};
  there.tuner.on_begin = [&] { still_here = tuner_.training.load(); };
  there.tuning->pause(id_).value();
  there.tuning->resume(id_).value();
  wait_for(id_, "succeeded");
  EXPECT_EQ(still_here, 0);
  EXPECT_EQ(tuner_.specs.size(), 1U);
  ASSERT_EQ(there.tuner.specs.size(), 1U);
  EXPECT_EQ(there.tuner.specs[0].run, tuner_.specs[0].run);
  end_before_its_seat();
}

TEST_F(FineTuningApi, AnotherServersJobsAreLeftToIt) {
  Given seat;
  tuning_->share(seat);
  const std::string id = job();
  EXPECT_TRUE(seat.first.wait());
  wait_for(id, "queued");
  EXPECT_TRUE(tuner_.specs.empty());
  seat.given = true;
  wait_for(id, "succeeded");
  end_before_its_seat();
}

TEST_F(FineTuningApi, JobsOfAServerThatEndsAreTakenOver) {
  stop();
  look_every_ = std::chrono::milliseconds(1);
  start();
  Given seat;
  tuning_->share(seat);
  EXPECT_TRUE(seat.first.wait());
  auto other = Store::open(dir_.path() / "store").value();
  const auto made_there = [&] { return other->jobs().create({.request = body(upload("good data"))}).value()->id; };
  const std::string running = made_there();
  other->jobs().move(running, JobStatus::kQueued).value();
  ASSERT_EQ(other->jobs().start_next().value()->id, running);
  const std::string unchecked = made_there();
  seat.given = true;
  wait_for(job(), "succeeded");
  EXPECT_EQ(look(running)["status"], "running") << "its server lives";
  EXPECT_EQ(look(unchecked)["status"], "validating_files");
  other.reset();
  wait_for(running, "succeeded");
  wait_for(unchecked, "succeeded");
  end_before_its_seat();
}

TEST_F(FineTuningApi, AJobWhoseModelIsNotServedHereWaits) {
  stop();
  look_every_ = std::chrono::milliseconds(1);
  start();
  const auto serve_other = [&] {
    const ModelLoadOptions load{.cache_bytes = std::uint64_t{64} << 20, .share = std::make_shared<ComputeShare>(1)};
    api_->models().put(serve_base_model(testing::tiny_llama().string(), "other", load).value());
  };
  serve_other();
  tuner_.go = false;
  job();
  ASSERT_TRUE(tuner_.begun.wait());
  const std::string waiting = job({{"model", "other"}});
  wait_for(waiting, "queued");
  EXPECT_TRUE(api_->models().remove("other"));
  tuner_.go = true;
  wait_for(job(), "succeeded");
  wait_for(job(), "succeeded");  // those behind it are not kept waiting
  EXPECT_EQ(look(waiting)["status"], "queued");
  const auto warnings = events(waiting, "warn");
  ASSERT_EQ(warnings.size(), 1U) << "told once";
  EXPECT_NE(warnings[0]["message"].get<std::string>().find("'other'"), std::string::npos) << warnings[0];
  serve_other();
  wait_for(waiting, "succeeded");
}

}  // namespace
}  // namespace tailor
