// Files and fine-tuning jobs over the API. The trainer is a double: the recipe's own is run by
// tests/recipes/serve_test.cpp.

#include "serve/fine_tuning.h"

#include "serve/batch_runner.h"
#include "serve/test_jobs.h"

namespace tailor {
namespace {

using test::FineTuningApi;
using test::Given;
using test::JsonAnswer;
using test::TestApi;

/// Of DoubleTuner's trainings.
constexpr const char* kMetrics =
    "step,train_loss,train_accuracy,valid_loss,valid_mean_token_accuracy,train_mean_token_accuracy,full_valid_loss,"
    "full_valid_mean_token_accuracy\n"
    "1,2.5,,,,,,\n"
    "2,2.25,0.5,1.5,0.75,0.5,1.5,0.75\n"
    "3,,,1.75,,,1.75,\n";

TEST_F(FineTuningApi, WhatNobodyReadsOfAFormAListOrAJobIsNamed) {
  const auto field = [](const char* name, const char* value) {
    return std::string("--XX\r\nContent-Disposition: form-data; name=\"") + name + "\"\r\n\r\n" + value + "\r\n";
  };
  const auto ignored = [](const JsonAnswer& answer) {
    EXPECT_EQ(answer.status, 200) << answer.json;
    const std::string* names = answer.headers.find("X-Ignored-Params");
    return names == nullptr ? "" : *names;
  };
  const JsonAnswer made = upload_form(
      field("purpose", "fine-tune") + field("expires_after[anchor]", "created_at") +
      "--XX\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.jsonl\"\r\n\r\ngood data\r\n--XX--\r\n");
  EXPECT_EQ(ignored(made), "expires_after[anchor]");
  EXPECT_EQ(ignored(upload("good data")), "");
  EXPECT_EQ(ignored(api_->get("/v1/files?limit=3&purpose=fine-tune&odd=1")), "?odd");
  const Json method{{"type", "supervised"}, {"odd", 1}, {"supervised", {{"odd", 1}}}};
  const JsonAnswer job =
      api_->post("/v1/fine_tuning/jobs", {{"model", "tiny"}, {"training_file", made.json["id"]}, {"method", method}});
  EXPECT_EQ(ignored(job), "method.odd, method.supervised.odd");
  wait_for(job.json["id"], "succeeded");
}

TEST_F(FineTuningApi, AnUploadThatFindsNoPlaceToBeginIsNotItsClientsFault) {
  std::filesystem::remove_all(store_->directory().staging().parent_path());
  const JsonAnswer failed = upload("good data");
  EXPECT_EQ(failed.status, 500) << failed.json;
  EXPECT_EQ(failed.json["error"]["message"].get<std::string>().find(dir_.path().string()), std::string::npos);
}

TEST_F(FineTuningApi, FilesComeAndGo) {
  for (const bool file_first : {false, true}) {
    const std::string content = "line\r\n--X\r\n\r\n--XY and \r\n--Xgood";
    const JsonAnswer made = upload(content, "fine-tune", file_first);
    ASSERT_EQ(made.status, 200) << made.json;
    EXPECT_EQ(made.json["object"], "file");
    EXPECT_EQ(made.json["filename"], "b.jsonl");
    EXPECT_EQ(made.json["purpose"], "fine-tune");
    EXPECT_EQ(made.json["bytes"], content.size());
    const std::string path = "/v1/files/" + made.json["id"].get<std::string>();
    EXPECT_EQ(api_->get(path).json, made.json);
    auto client = api_->client();
    EXPECT_EQ(client.ask("GET " + path + "/content HTTP/1.1\r\nHost: localhost\r\n\r\n").body, content);
  }
  EXPECT_EQ(api_->get("/v1/files?purpose=fine-tune").json["data"].size(), 2u);
  EXPECT_EQ(api_->get("/v1/files?purpose=batch").json["data"].size(), 0u);
  const Json page = api_->get("/v1/files?limit=1").json;
  EXPECT_EQ(page["data"].size(), 1u);
  EXPECT_EQ(page["has_more"], true);
  const std::string id = page["data"][0]["id"];
  auto client = api_->client();
  EXPECT_EQ(Json::parse(client.ask("DELETE /v1/files/" + id + " HTTP/1.1\r\nHost: localhost\r\n\r\n").body)["deleted"],
            true);
  EXPECT_EQ(api_->get("/v1/files/" + id).status, 404);
}

TEST_F(FineTuningApi, UploadsThatAreNone) {
  const std::string file = "--XX\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a\"\r\n\r\nx\r\n";
  EXPECT_EQ(upload_form(file + "--XX--\r\n").json["error"]["param"], "purpose");
  EXPECT_EQ(upload_form("--XX\r\nContent-Disposition: form-data; name=\"purpose\"\r\n\r\nbatch\r\n--XX--")
                .json["error"]["param"],
            "file");
  EXPECT_EQ(upload("x", "world-domination").json["error"]["param"], "purpose");
  EXPECT_EQ(upload_form(file).json["error"]["param"], "file");  // stops before its end
  EXPECT_EQ(upload_form(file + file + "--XX--").status, 400);
  EXPECT_EQ(upload_form("--XX\r\n\r\nx\r\n--XX--").status, 400);
  EXPECT_EQ(upload_form("--XX\r\n" + std::string(10'000, 'a')).status, 400);
  EXPECT_EQ(api_->post("/v1/files", Json::object()).status, 415);
  EXPECT_EQ(api_->get("/v1/files").json["data"].size(), 0u);
  EXPECT_EQ(api_->get("/v1/files?limit=0").json["error"]["param"], "limit");
  // A client that goes half way leaves nothing.
  auto client = api_->client();
  client.send(
      "POST /v1/files HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=XX\r\nContent-Length: "
      "100000\r\n\r\n" +
      file.substr(0, file.size() - 3));
  client.abort();
  EXPECT_TRUE(test::eventually([&] { return api_->server().metrics().open_connections.load() == 0; }));
  EXPECT_EQ(api_->get("/v1/files").json["data"].size(), 0u);
  EXPECT_TRUE(std::filesystem::is_empty(store_->directory().files()));
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(store_->directory().staging().parent_path()),
                          std::filesystem::directory_iterator()),
            1)
      << "the lock alone";
}

TEST_F(FineTuningApi, AJobTrainsAndItsModelIsServedAtOnce) {
  const std::string id =
      job({{"suffix", "mine"},
           {"seed", 7},
           {"method",
            {{"type", "supervised"},
             {"supervised",
              {{"hyperparameters", {{"n_epochs", 2}, {"batch_size", "auto"}, {"learning_rate_multiplier", 0.5}}}}}}}});
  const Json done = wait_for(id, "succeeded");
  EXPECT_EQ(done["object"], "fine_tuning.job");
  EXPECT_EQ(done["trained_tokens"], 123);
  EXPECT_TRUE(done["error"].is_null() || done["error"].empty()) << done;
  const std::string model = done["fine_tuned_model"];
  EXPECT_EQ(model.rfind("ft:tiny:tailor:mine:", 0), 0u) << model;
  EXPECT_EQ(tuner_.specs[0].epochs, 2);
  EXPECT_FALSE(tuner_.specs[0].batch_size.has_value());
  EXPECT_EQ(tuner_.specs[0].learning_rate_multiplier, 0.5);
  EXPECT_EQ(tuner_.specs[0].seed, 7u);
  EXPECT_EQ(api_->get("/v1/models/" + model).json["parent"], "tiny");
  EXPECT_EQ(api_->post("/v1/completions", {{"model", model}, {"prompt", "x"}, {"max_tokens", 2}}).status, 200);
  const Json events = api_->get("/v1/fine_tuning/jobs/" + id + "/events?limit=100").json;
  ASSERT_GE(events["data"].size(), 6u);
  EXPECT_EQ(events["data"][0]["object"], "fine_tuning.job.event");
  bool metrics = false;
  for (const Json& event : events["data"])
    metrics = metrics || (event["type"] == "metrics" && event["data"]["step"] == 2);
  EXPECT_TRUE(metrics);
  const Json checkpoints = api_->get("/v1/fine_tuning/jobs/" + id + "/checkpoints").json;
  ASSERT_EQ(checkpoints["data"].size(), 1u);
  EXPECT_EQ(checkpoints["data"][0]["step_number"], 2) << "what was kept, and not the last step";
  const Json kept = checkpoints["data"][0]["metrics"];
  EXPECT_EQ(kept["step"], 2);
  EXPECT_EQ(kept["train_loss"], 2.25);
  EXPECT_EQ(kept["train_mean_token_accuracy"], 0.5);
  EXPECT_EQ(kept["valid_loss"], 1.5);
  EXPECT_EQ(kept["full_valid_loss"], 1.5);
  EXPECT_EQ(kept["full_valid_mean_token_accuracy"], 0.75);
  auto client = api_->client();
  EXPECT_EQ(client
                .ask("GET /v1/files/" + done["result_files"][0].get<std::string>() +
                     "/content HTTP/1.1\r\nHost: localhost\r\n\r\n")
                .body,
            kMetrics);
  EXPECT_EQ(api_->get("/v1/fine_tuning/jobs").json["data"][0]["id"], id);
  // And after a restart.
  stop();
  start();
  EXPECT_EQ(look(id)["fine_tuned_model"], model);
  EXPECT_EQ(api_->post("/v1/completions", {{"model", model}, {"prompt", "x"}, {"max_tokens", 2}}).status, 200);
}

TEST_F(FineTuningApi, AJobTellsWhatItTrainsWith) {
  tuner_.go = false;
  const std::string first = job({{"hyperparameters", {{"n_epochs", 2}}}});
  ASSERT_TRUE(tuner_.begun.wait());
  const std::string second = job(
      {{"seed", 9},
       {"hyperparameters", {{"n_epochs", 5}, {"batch_size", 4}}},
       {"method",
        {{"type", "supervised"}, {"supervised", {{"hyperparameters", {{"n_epochs", 7}, {"batch_size", "auto"}}}}}}}});
  const Json waiting = wait_for(second, "queued");
  EXPECT_EQ(waiting["hyperparameters"],
            Json({{"n_epochs", 7}, {"batch_size", 4}, {"learning_rate_multiplier", "auto"}}));
  EXPECT_EQ(waiting["method"]["supervised"]["hyperparameters"], waiting["hyperparameters"]);
  EXPECT_EQ(waiting["seed"], 9);
  const Json used{{"n_epochs", 2}, {"batch_size", 8}, {"learning_rate_multiplier", 2.5}};
  const auto check = [&](const Json& shown) {
    EXPECT_EQ(shown["hyperparameters"], used) << shown["status"];
    EXPECT_EQ(shown["method"], Json({{"type", "supervised"}, {"supervised", {{"hyperparameters", used}}}}));
    EXPECT_EQ(shown["seed"], 1) << "none was asked for";
  };
  ASSERT_TRUE(test::eventually([&] { return look(first)["hyperparameters"] == used; })) << look(first);
  check(look(first));
  stop();
  tuner_.go = true;
  start();
  check(wait_for(first, "succeeded"));
  EXPECT_EQ(tuner_.specs.at(0).seed, 1U);
  const Json done = wait_for(second, "succeeded");
  EXPECT_EQ(done["hyperparameters"], Json({{"n_epochs", 7}, {"batch_size", 4}, {"learning_rate_multiplier", 2.5}}));
  EXPECT_EQ(tuner_.specs.back().seed, 9U);
  EXPECT_EQ(tuner_.specs.back().epochs, 7);
  EXPECT_EQ(tuner_.specs.back().batch_size, 4);
}

TEST_F(FineTuningApi, WhereNothingTrainsAJobIsRefusedAndNotBegun) {
  tuner_.able = false;
  const Json wish{{"model", "tiny"}, {"training_file", upload("good data").json["id"]}};
  const JsonAnswer refused = api_->post("/v1/fine_tuning/jobs", wish);
  EXPECT_EQ(refused.status, 501);
  EXPECT_EQ(refused.json["error"], Json({{"message", "nothing trains here (build it)"},
                                         {"type", "not_supported_error"},
                                         {"param", nullptr},
                                         {"code", "training_not_available"}}));
  EXPECT_TRUE(api_->get("/v1/fine_tuning/jobs").json["data"].empty());
  tuner_.able = true;
  EXPECT_EQ(api_->post("/v1/fine_tuning/jobs", wish).status, 200);
}

TEST_F(FineTuningApi, BadFilesFailInValidationWithTheirLines) {
  const std::string id = job({{"training_file", upload("bad data").json["id"]}});
  const Json failed = wait_for(id, "failed");
  EXPECT_EQ(failed["error"]["code"], "invalid_training_file");
  EXPECT_EQ(failed["error"]["param"], "training_file");
  EXPECT_EQ(failed["error"]["message"], "b.jsonl:3: expected good, saw bad data");
  EXPECT_TRUE(tuner_.specs.empty());
}

TEST_F(FineTuningApi, FailuresTellNoPaths) {
  tuner_.fails = true;
  const Json failed = wait_for(job(), "failed");
  EXPECT_EQ(failed["error"]["code"], "storage_error");
  const std::string message = failed["error"]["message"];
  EXPECT_NE(message.find("the disk is full"), std::string::npos);
  const std::string id = failed["id"], model = testing::tiny_llama().parent_path().string();
  EXPECT_NE(message.find(testing::tiny_llama().filename().string()), std::string::npos) << message;
  const std::string all = dump_json(failed) + dump_json(api_->get("/v1/fine_tuning/jobs/" + id + "/events").json);
  for (const std::string& place : {dir_.path().string(), model}) EXPECT_EQ(all.find(place), std::string::npos) << all;
  EXPECT_TRUE(logged(model)) << "the log has the whole of it";
}

TEST_F(FineTuningApi, CancelPauseAndResume) {
  tuner_.go = false;
  const std::string first = job(), second = job();
  ASSERT_TRUE(tuner_.begun.wait());
  wait_for(second, "queued");
  EXPECT_EQ(api_->post("/v1/fine_tuning/jobs/" + second + "/cancel", Json::object()).json["status"], "cancelled");
  EXPECT_EQ(api_->post("/v1/fine_tuning/jobs/" + second + "/cancel", Json::object()).status, 400);
  wait_for(first, "running");
  EXPECT_EQ(api_->post("/v1/fine_tuning/jobs/" + first + "/pause", Json::object()).json["status"], "paused");
  EXPECT_EQ(api_->post("/v1/fine_tuning/jobs/" + first + "/resume", Json::object()).json["status"], "queued");
  tuner_.go = true;
  wait_for(first, "succeeded");
  EXPECT_EQ(tuner_.specs.size(), 2u);
  EXPECT_EQ(tuner_.specs[0].run, tuner_.specs[1].run);  // goes on where it was
}

TEST_F(FineTuningApi, AJobThatIsPausedAsItEndsIsPausedAndNotLost) {
  std::string id;
  std::atomic<bool> known{false};
  std::atomic<int> ends{0};
  tuner_.on_end = [&] {
    known.wait(false);
    if (ends++ > 0) return;
    EXPECT_EQ(api_->post("/v1/fine_tuning/jobs/" + id + "/pause", Json::object()).status, 200);
  };
  id = job();
  known = true;
  known.notify_all();
  wait_for(id, "paused");
  const std::string next = job();
  wait_for(next, "succeeded");  // the trainer is done with the first
  EXPECT_EQ(look(id)["status"], "paused");
  EXPECT_EQ(api_->post("/v1/fine_tuning/jobs/" + id + "/resume", Json::object()).status, 200);
  EXPECT_EQ(wait_for(id, "succeeded")["trained_tokens"], 123);
}

TEST_F(FineTuningApi, OnlyWhatIsPausedIsResumed) {
  tuner_.go = false;
  const std::string running = job(), queued = job();
  ASSERT_TRUE(tuner_.begun.wait());
  wait_for(queued, "queued");
  for (const std::string& id : {running, queued}) {
    const JsonAnswer refused = api_->post("/v1/fine_tuning/jobs/" + id + "/resume", Json::object());
    EXPECT_EQ(refused.status, 400) << refused.json;
  }
  tuner_.go = true;
  wait_for(running, "succeeded");
  EXPECT_EQ(tuner_.specs.at(0).run.filename(), running);
  wait_for(queued, "succeeded");
  EXPECT_EQ(tuner_.specs.size(), 2u) << "neither was begun twice";
}

TEST_F(FineTuningApi, WhatAFileOrATrainingThrowsEndsItsJobAlone) {
  std::atomic<int> checks{0}, ends{0};
  tuner_.on_check = [&] {
    if (checks++ == 0) throw std::bad_alloc();
  };
  tuner_.on_end = [&] {
    if (ends++ == 0) throw std::runtime_error("no number");
  };
  const std::string unread = job();
  EXPECT_EQ(wait_for(unread, "failed")["error"]["code"], "server_error");
  const std::string thrown = job(), good = job();
  const Json failed = wait_for(thrown, "failed");
  EXPECT_EQ(failed["error"]["code"], "server_error");
  EXPECT_EQ(failed["error"]["message"].get<std::string>().find("no number"), std::string::npos);
  wait_for(good, "succeeded");
}

TEST_F(FineTuningApi, AStoreThatIsHeldForAMomentLosesNoJob) {
  stop();
  busy_timeout_ms_ = 1;
  start();
  test::Event checked, held;
  tuner_.on_check = [&] {
    checked.set();
    EXPECT_TRUE(held.wait());
  };
  const std::string id = job();
  ASSERT_TRUE(checked.wait());
  {
    const Database other = Database::open(store_->directory().database(), store_migrations()).value();
    const Transaction writes = other.write().value();
    held.set();
    EXPECT_TRUE(test::eventually([&] { return log_.all().find(id + ": ") != std::string::npos; })) << log_.all();
    EXPECT_EQ(look(id)["status"], "validating_files");
  }
  wait_for(id, "succeeded");
}

TEST_F(FineTuningApi, AStoreThatIsHeldAsAJobEndsLosesNoTraining) {
  busy_timeout_ms_ = 1;
  for (const bool server_ends : {false, true}) {
    SCOPED_TRACE(server_ends);
    stop();
    start();
    tuner_.specs.clear();
    test::Event ended, held;
    tuner_.on_end = [&] {
      ended.set();
      EXPECT_TRUE(held.wait());
    };
    const std::string id = job();
    ASSERT_TRUE(ended.wait());
    {
      const Database other = other_connection();
      const Transaction writes = other.write().value();
      held.set();
      EXPECT_TRUE(logged(id + ": ")) << log_.all();
      EXPECT_EQ(look(id)["status"], "running");
      if (server_ends) stop();
    }
    if (server_ends) start();
    EXPECT_EQ(wait_for(id, "succeeded")["trained_tokens"], 123);
    EXPECT_EQ(tuner_.specs.size(), server_ends ? 2U : 1U) << "that is up to the trainer: the run is the same";
    EXPECT_EQ(tuner_.specs.back().run, tuner_.specs.front().run);
  }
  EXPECT_EQ(api_->get("/v1/files?purpose=fine-tune-results").json["data"].size(), 2U) << "one of each job";
}

TEST_F(FineTuningApi, WhatIsToldWhileTheStoreIsHeldIsWrittenWhenItIsFree) {
  stop();
  busy_timeout_ms_ = 1;
  start();
  for (const bool fails : {false, true}) {
    SCOPED_TRACE(fails);
    tuner_.fails = fails;
    test::Event begun, held, ended;
    tuner_.on_begin = [&] {
      begun.set();
      EXPECT_TRUE(held.wait());
    };
    tuner_.on_end = [&] { ended.set(); };
    const std::string id = job();
    ASSERT_TRUE(begun.wait());
    {
      const Database other = other_connection();
      const Transaction writes = other.write().value();
      held.set();
      EXPECT_TRUE(logged(id + ": ")) << log_.all();
      EXPECT_TRUE(fails || ended.wait());
    }
    const Json done = wait_for(id, fails ? "failed" : "succeeded");
    std::vector<std::string> told;
    for (const Json& event : events(id, "info")) {
      if (event["type"] == "metrics") told.push_back(event["message"].get<std::string>());
    }
    std::vector<std::string> expected{"Step 3: validation loss=1.7500", "Step 2: validation loss=1.5000",
                                      "Step 2: training loss=2.2500", "Step 1: training loss=2.5000"};
    if (fails) expected.erase(expected.begin(), expected.end() - 1);
    EXPECT_EQ(told, expected);
    if (fails) continue;
    const FileRecord results = store_->files().find(done["result_files"][0].get<std::string>()).value();
    EXPECT_EQ(read_file(store_->files().content(results)).value(), kMetrics);
  }
}

TEST_F(FineTuningApi, AJobThatCannotBeWrittenWholeIsNotThere) {
  change_database(
      "CREATE TRIGGER full BEFORE INSERT ON job_events WHEN NEW.message LIKE 'Validating%' "
      "BEGIN SELECT RAISE(ABORT, 'no room'); END");
  const Json wish = body(upload("good data"));
  EXPECT_NE(api_->post("/v1/fine_tuning/jobs", wish).status, 200);
  EXPECT_TRUE(api_->get("/v1/fine_tuning/jobs").json["data"].empty());
  change_database("DROP TRIGGER full");
  wait_for(api_->post("/v1/fine_tuning/jobs", wish).json["id"], "succeeded");
  EXPECT_EQ(api_->get("/v1/fine_tuning/jobs").json["data"].size(), 1U);
}

TEST_F(FineTuningApi, AStoreThatCannotBeReadIsNoMissingJob) {
  const std::string id = job();
  wait_for(id, "succeeded");
  const Json wish = body(upload("good data"));
  OpenDoor door;
  BatchRunner runner(api_->api().services(), door, api_->api().observers(), {.input = {}, .clock = {}});
  api_->api().services().batches = &runner;
  const Json batch{{"input_file_id", upload("x", "batch").json["id"]},
                   {"endpoint", "/v1/completions"},
                   {"completion_window", "24h"}};
  for (const std::string table : {"jobs", "files"})
    change_database("ALTER TABLE " + table + " RENAME TO gone_" + table);
  for (const std::string& path : {id, id + "/events", std::string("ftjob-none")})
    EXPECT_EQ(api_->get("/v1/fine_tuning/jobs/" + path).status, 500) << path;
  EXPECT_EQ(tell(id, "cancel").status, 500);
  EXPECT_EQ(api_->post("/v1/fine_tuning/jobs", wish).status, 500);
  EXPECT_EQ(api_->post("/v1/batches", batch).status, 500);
  for (const std::string table : {"jobs", "files"})
    change_database("ALTER TABLE gone_" + table + " RENAME TO " + table);
  EXPECT_EQ(look(id)["status"], "succeeded");
  EXPECT_EQ(api_->get("/v1/fine_tuning/jobs/ftjob-none").status, 404);
  api_->server().stop();
  api_->api().services().batches = nullptr;  // before its end
}

TEST_F(FineTuningApi, OnlySoManyMayBeUnfinished) {
  api_->api().services().limits.jobs = 2;
  tuner_.go = false;
  const std::string first = job();
  job();
  const Json wish = body(upload("good data"));
  const JsonAnswer refused = api_->post("/v1/fine_tuning/jobs", wish);
  EXPECT_EQ(refused.status, 429) << refused.json;
  EXPECT_EQ(refused.json["error"]["code"], "job_limit_exceeded");
  EXPECT_EQ(refused.json["error"]["type"], "requests");
  ASSERT_NE(refused.headers.find("x-should-retry"), nullptr);
  EXPECT_EQ(*refused.headers.find("x-should-retry"), "false");
  EXPECT_EQ(api_->get("/v1/fine_tuning/jobs").json["data"].size(), 2U);
  EXPECT_EQ(tell(first, "cancel").status, 200);
  EXPECT_EQ(api_->post("/v1/fine_tuning/jobs", wish).status, 200);
}

TEST_F(FineTuningApi, AFileThatIsGoneFailsTheJob) {
  tuner_.go = false;
  const std::string running = job();
  ASSERT_TRUE(tuner_.begun.wait());
  std::map<std::string, std::string> jobs;
  for (const std::string field : {"training_file", "validation_file"}) {
    const std::string file = upload("good data").json["id"];
    jobs[field] = job({{field, file}});
    wait_for(jobs[field], "queued");
    store_->files().remove(file).value();
  }
  tuner_.go = true;
  for (const auto& [field, id] : jobs) {
    const Json failed = wait_for(id, "failed");
    EXPECT_EQ(failed["error"]["code"], "invalid_" + field);
    EXPECT_EQ(failed["error"]["param"], field);
    EXPECT_NE(failed["error"]["message"].get<std::string>().find("was deleted"), std::string::npos) << failed;
    EXPECT_TRUE(test::eventually([&, id = id] { return !std::filesystem::exists(data_of(id)); }));
  }
  wait_for(running, "succeeded");
  EXPECT_EQ(tuner_.specs.size(), 1U) << "a part of the training file does not take its place";
}

TEST_F(FineTuningApi, OfAJobThatIsCancelledNothingStays) {
  tuner_.go = false;
  const auto is_gone = [&](const std::string& id) {
    return test::eventually(
        [&] { return !std::filesystem::exists(run_of(id)) && !std::filesystem::exists(data_of(id)); });
  };
  const std::string running = job();
  ASSERT_TRUE(tuner_.begun.wait());
  write_checkpoint(running);
  EXPECT_TRUE(std::filesystem::exists(data_of(running)));
  EXPECT_EQ(tell(running, "cancel").status, 200);
  EXPECT_TRUE(is_gone(running));

  const std::string paused = job();
  wait_for(paused, "running");
  EXPECT_TRUE(test::eventually([&] { return std::filesystem::exists(data_of(paused)); }));
  write_checkpoint(paused);
  EXPECT_EQ(tell(paused, "pause").status, 200);
  stop();
  start();
  EXPECT_TRUE(std::filesystem::exists(run_of(paused))) << "it may be resumed";
  EXPECT_EQ(tell(paused, "cancel").status, 200);
  EXPECT_TRUE(is_gone(paused));

  write_checkpoint(paused);  // by a server that was killed before it was removed
  stop();
  start();
  EXPECT_TRUE(is_gone(paused));
}

TEST_F(FineTuningApi, OfAJobThatFailedReportsAndLogsStay) {
  std::string id;
  test::Event known;
  tuner_.on_end = [&] {
    EXPECT_TRUE(known.wait());
    write_checkpoint(id);
    throw std::runtime_error("no number");
  };
  id = job();
  known.set();
  wait_for(id, "failed");
  const auto weights = run_of(id) / "package" / "adapter" / "adapter.gguf";
  const auto checkpoint = run_of(id) / "train" / "checkpoint" / "state.safetensors";
  const auto is_tidy = [&] {
    return test::eventually([&] {
      return !std::filesystem::exists(weights) && !std::filesystem::exists(checkpoint) &&
             !std::filesystem::exists(data_of(id));
    });
  };
  EXPECT_TRUE(is_tidy());
  EXPECT_EQ(read_file(run_of(id) / "train" / "log.txt").value(), "words");
  write_checkpoint(id);
  stop();
  start();
  EXPECT_TRUE(is_tidy()) << "where a server was killed before";
  EXPECT_TRUE(std::filesystem::exists(run_of(id) / "train" / "log.txt"));
}

TEST_F(FineTuningApi, FilesThatCannotBeLookedUpAreLookedUpAgain) {
  Given seat;
  tuning_->share(seat);
  const std::string id = job();
  wait_for(id, "queued");
  change_database("ALTER TABLE files RENAME TO gone");
  seat.given = true;
  EXPECT_TRUE(logged(id + ": ")) << log_.all();
  EXPECT_EQ(look(id)["status"], "running");
  change_database("ALTER TABLE gone RENAME TO files");
  wait_for(id, "succeeded");
  end_before_its_seat();
}

TEST_F(FineTuningApi, AJobThatRanGoesOnAfterARestart) {
  tuner_.go = false;
  const std::string id = job();
  ASSERT_TRUE(tuner_.begun.wait());
  wait_for(id, "running");
  stop();
  tuner_.go = true;
  start();
  const Json done = wait_for(id, "succeeded");
  EXPECT_EQ(done["trained_tokens"], 123);
  EXPECT_EQ(tuner_.specs.size(), 2u);
  auto client = api_->client();
  EXPECT_EQ(client
                .ask("GET /v1/files/" + done["result_files"][0].get<std::string>() +
                     "/content HTTP/1.1\r\nHost: localhost\r\n\r\n")
                .body,
            kMetrics)
      << "with the steps before it, and none twice";
}

TEST_F(FineTuningApi, RequestsThatAreRefused) {
  const std::string good = upload("good").json["id"];
  const auto param = [&](Json body) {
    const JsonAnswer got = api_->post("/v1/fine_tuning/jobs", body);
    EXPECT_GE(got.status, 400) << body;
    EXPECT_LT(got.status, 500) << body;
    return got.json["error"]["param"].is_string() ? got.json["error"]["param"].get<std::string>() : "";
  };
  EXPECT_EQ(param({{"training_file", good}}), "model");
  EXPECT_EQ(param({{"model", "tiny"}}), "training_file");
  EXPECT_EQ(param({{"model", "other"}, {"training_file", good}}), "model");
  EXPECT_EQ(param({{"model", "tiny"}, {"training_file", "file-none"}}), "training_file");
  EXPECT_EQ(param({{"model", "tiny"}, {"training_file", upload("x", "batch").json["id"]}}), "training_file");
  EXPECT_EQ(param({{"model", "tiny"}, {"training_file", good}, {"suffix", "a b"}}), "suffix");
  EXPECT_EQ(param({{"model", "tiny"}, {"training_file", good}, {"seed", -1}}), "seed");
  EXPECT_EQ(param({{"model", "tiny"}, {"training_file", good}, {"hyperparameters", {{"n_epochs", 51}}}}),
            "hyperparameters.n_epochs");
  EXPECT_EQ(param({{"model", "tiny"}, {"training_file", good}, {"hyperparameters", {{"epochs", 5}}}}),
            "hyperparameters.epochs");
  EXPECT_EQ(param({{"model", "tiny"}, {"training_file", good}, {"method", {{"type", "dpo"}}}}), "method.type");
  for (const Json& integrations : {Json::array({{{"type", "wandb"}}}), Json({{"type", "wandb"}}), Json("wandb")})
    EXPECT_EQ(param({{"model", "tiny"}, {"training_file", good}, {"integrations", integrations}}), "integrations");
  for (const Json& metadata : {Json({{"a", {{"b", 1}}}}), Json({{"a", 1}}), Json({{"a", std::string(513, 'x')}}),
                               Json({{std::string(65, 'x'), "a"}}), Json("x")})
    EXPECT_EQ(param({{"model", "tiny"}, {"training_file", good}, {"metadata", metadata}}), "metadata") << metadata;
  EXPECT_EQ(api_->get("/v1/fine_tuning/jobs/ftjob-none").status, 404);
  EXPECT_EQ(api_->get("/v1/fine_tuning/jobs?limit=x").json["error"]["param"], "limit");
  TestApi without;
  EXPECT_EQ(without.get("/v1/fine_tuning/jobs").status, 501);
}

}  // namespace
}  // namespace tailor
