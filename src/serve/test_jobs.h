#pragma once
/// Files and fine-tuning jobs over the API, with a trainer that trains nothing.

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "core/files.h"
#include "serve/background_seat.h"
#include "serve/fine_tuning.h"
#include "serve/test_api.h"
#include "serve/test_log.h"
#include "serve/test_tuner.h"
#include "store/database.h"
#include "store/schema.h"

namespace tailor::test {

class FineTuningApi : public ::testing::Test {
 protected:
  void SetUp() override { start(); }
  void start() {
    api_ = std::make_unique<TestApi>();
    store_ = Store::open(dir_.path() / "store", {.busy_timeout_ms = busy_timeout_ms_}).value();
    ModelLoadOptions load;
    load.share = std::make_shared<ComputeShare>(1);
    tuning_ = std::make_unique<FineTuning>(*store_, api_->models(), tuner_, load, log_, look_every_);
    tuning_->serve_finished();
    api_->api().services().store = store_.get();
    api_->api().services().tuning = tuning_.get();
  }
  void stop() {
    api_->server().stop();
    api_->api().stop();
    tuning_.reset();
    api_.reset();
    store_.reset();
  }
  /// Where the seat that was given to it is gone before the fixture is.
  void end_before_its_seat() {
    api_->api().services().tuning = nullptr;
    tuning_.reset();
  }
  void TearDown() override { stop(); }

  JsonAnswer upload(const std::string& content, const std::string& purpose = "fine-tune", bool file_first = false) {
    const std::string file =
        "--XX\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a/b.jsonl\"\r\nContent-Type: "
        "application/json\r\n\r\n" +
        content + "\r\n";
    const std::string field = "--XX\r\nContent-Disposition: form-data; name=\"purpose\"\r\n\r\n" + purpose + "\r\n";
    return upload_form((file_first ? file + field : field + file) + "--XX--\r\n");
  }
  JsonAnswer upload_form(const std::string& form) {
    auto client = api_->client();
    const Answer answer = client.ask(
        "POST /v1/files HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; "
        "boundary=XX\r\nContent-Length: " +
        std::to_string(form.size()) + "\r\n\r\n" + form);
    return {answer.status, answer.headers, Json::parse(answer.body, nullptr, false)};
  }
  static Json body(const JsonAnswer& file) { return {{"model", "tiny"}, {"training_file", file.json["id"]}}; }
  std::string job(Json more = Json::object()) {
    Json wish = body(upload("good data"));
    wish.update(more);
    const JsonAnswer made = api_->post("/v1/fine_tuning/jobs", wish);
    EXPECT_EQ(made.status, 200) << made.json;
    return made.json.value("id", "");
  }
  Json look(const std::string& id) { return api_->get("/v1/fine_tuning/jobs/" + id).json; }
  Json wait_for(const std::string& id, const std::string& status) {
    EXPECT_TRUE(eventually([&] { return look(id)["status"] == status; })) << look(id);
    return look(id);
  }
  JsonAnswer tell(const std::string& id, const std::string& action) {
    return api_->post("/v1/fine_tuning/jobs/" + id + "/" + action, Json::object());
  }
  std::vector<Json> events(const std::string& id, const std::string& level) {
    std::vector<Json> out;
    const Json page = api_->get("/v1/fine_tuning/jobs/" + id + "/events?limit=1000").json;
    for (const Json& event : page["data"]) {
      if (event["level"] == level) out.push_back(event);
    }
    return out;
  }
  bool logged(const std::string& text) {
    return eventually([&] { return log_.all().find(text) != std::string::npos; });
  }
  /// Of another process, say.
  Database other_connection() { return Database::open(store_->directory().database(), store_migrations()).value(); }
  void change_database(const std::string& sql) {
    const Database other = other_connection();
    Transaction transaction = other.write().value();
    transaction.run(sql).value();
    transaction.commit().value();
  }
  std::filesystem::path run_of(const std::string& id) const { return dir_.path() / "store" / "runs" / id; }
  std::filesystem::path data_of(const std::string& id) const { return run_of(id + "-data"); }
  /// As a training leaves it that has not come to its end.
  void write_checkpoint(const std::string& id) {
    make_directories(run_of(id) / "train" / "checkpoint").value();
    write_file_atomic(run_of(id) / "train" / "checkpoint" / "state.safetensors", "weights").value();
    write_file_atomic(run_of(id) / "train" / "log.txt", "words").value();
  }

  TemporaryDirectory dir_{"jobs"};
  int busy_timeout_ms_ = 5000;
  std::chrono::milliseconds look_every_ = std::chrono::hours(1);  // never, where a test does not say so
  KeptLog log_;
  DoubleTuner tuner_;
  std::unique_ptr<Store> store_;
  std::unique_ptr<TestApi> api_;
  std::unique_ptr<FineTuning> tuning_;
};

/// A seat that is given when the test says so.
class Given final : public BackgroundSeat {
 public:
  bool holds(std::string_view work) override {
    if (work == "jobs" && ++asked == 1) first.set();
    return given;
  }
  std::atomic<bool> given{false};
  std::atomic<int> asked{0};
  Event first;
};

}  // namespace tailor::test
