#pragma once
/// Batches over the API, with a tiny model behind it and a clock that stands.

#include <gtest/gtest.h>

#include <map>
#include <mutex>
#include <stdexcept>
#include <vector>

#include "core/files.h"
#include "serve/batch_runner.h"
#include "serve/key_door.h"
#include "serve/test_api.h"
#include "serve/test_log.h"

namespace tailor::test {

inline constexpr const char* kCompletions = "/v1/completions";

inline std::string line(const std::string& id, const Json& body, const std::string& url = kCompletions) {
  return dump_json({{"custom_id", id}, {"method", "POST"}, {"url", url}, {"body", body}}) + "\n";
}

/// Lines "0", "1", … of answers of so many tokens.
inline std::string lines(int count, int tokens, const std::string& model = "tiny") {
  std::string out;
  for (int i = 0; i < count; ++i)
    out += line(std::to_string(i), {{"model", model}, {"prompt", "x"}, {"max_tokens", tokens}, {"ignore_eos", true}});
  return out;
}

/// Counts answers to requests for text that somebody waited for, and keeps whose the others were.
class LiveAnswers final : public RequestObserver {
 public:
  void on_request(const RequestRecord& record) override {
    if (!record.batch_id.empty()) {
      const std::lock_guard lock(mutex_);
      keys_.push_back(record.key_id);
    }
    if (record.batch_id.empty() && record.route != nullptr && std::string(record.route->path) == kCompletions) ++count;
  }
  std::atomic<int> count{0};
  /// Keys of requests of batches, in the order of their answers.
  std::vector<std::string> keys() {
    const std::lock_guard lock(mutex_);
    return keys_;
  }

 private:
  std::mutex mutex_;
  std::vector<std::string> keys_;
};

class BatchApi : public ::testing::Test {
 protected:
  void SetUp() override { start(); }
  void start(BatchOptions options = {}) {
    store_ = Store::open(dir_.path() / "store", {.clock = [this] { return now_.load(); }}).value();
    if (keyed_) {
      KeyDoorOptions door;
      door.look_every = std::chrono::milliseconds(10);
      door.clock = [this] { return UnixMillis(std::chrono::seconds(now_.load())); };
      door_ = std::make_unique<KeyDoor>(*store_, log_, door);
    }
    server_.observers = {&live_};
    api_ = std::make_unique<TestApi>(server_, ModelLoadOptions{}, door_.get(), &metrics_);
    options.clock = [this] { return now_.load(); };
    options.look_every = std::chrono::milliseconds(10);
    api_->api().services().store = store_.get();
    api_->api().services().log = &log_;
    Authenticator& door = door_ ? static_cast<Authenticator&>(*door_) : open_;
    runner_ = std::make_unique<BatchRunner>(api_->api().services(), door, api_->api().observers(), options);
    api_->api().services().batches = runner_.get();
  }
  /// The store as another server has it open.
  std::unique_ptr<Store> other_server() {
    return Store::open(dir_.path() / "store", {.clock = [this] { return now_.load(); }}).value();
  }
  void stop() {
    api_->server().stop();
    api_->api().stop();
    runner_.reset();
    api_.reset();
    door_.reset();
    store_.reset();
  }
  void restart(BatchOptions options = {}) {
    stop();
    start(std::move(options));
  }
  void TearDown() override { stop(); }

  std::string file(const std::string& content, const std::string& owner = "", const std::string& purpose = "batch") {
    return store_->files().add("in.jsonl", purpose, owner, content).value().id;
  }
  std::string create(const std::string& content, const std::string& endpoint = kCompletions,
                     const Json& more = Json::object()) {
    Json body{{"input_file_id", file(content)}, {"endpoint", endpoint}, {"completion_window", "24h"}};
    body.update(more);
    const JsonAnswer made = api_->post("/v1/batches", body);
    EXPECT_EQ(made.status, 200) << made.json;
    return made.json.value("id", "");
  }
  Json look(const std::string& id, const std::string& fields = "") {
    return api_->get("/v1/batches/" + id, fields).json;
  }
  Json wait_for(const std::string& id, const std::string& status, const std::string& fields = "") {
    EXPECT_TRUE(eventually([&] { return look(id, fields)["status"] == status; })) << look(id, fields);
    return look(id, fields);
  }
  void wait_for_answers(const std::string& id, int count) {
    EXPECT_TRUE(eventually([&] { return answers(id) >= count; })) << look(id);
  }
  int answers(const std::string& id) { return look(id)["request_counts"]["completed"].get<int>(); }
  /// A number that the runner tells of itself.
  std::size_t gauge(const std::string& name) const {
    MetricText text(MetricText::Format::kPrometheus);
    runner_->write_metrics(text);
    const std::string told = std::move(text).finish();
    const std::size_t at = told.find("\n" + name + " ");
    if (at == std::string::npos) throw std::runtime_error(name + " is not told");
    return std::stoul(told.substr(at + name.size() + 2));
  }
  std::size_t under_way() const { return gauge("tailor_batch_requests_running"); }
  std::string content(const Json& id, const std::string& fields = "") {
    if (!id.is_string()) return "";
    auto client = api_->client();
    return client
        .ask("GET /v1/files/" + id.get<std::string>() + "/content HTTP/1.1\r\nHost: localhost\r\n" + fields + "\r\n")
        .body;
  }
  /// Lines of a file by custom_id; none comes twice.
  static std::map<std::string, Json> by_id(const std::string& text) {
    std::map<std::string, Json> out;
    for (std::size_t at = 0; at < text.size();) {
      const std::size_t end = text.find('\n', at);
      Json json = Json::parse(text.substr(at, end - at));
      std::vector<std::string> names;
      for (const auto& [name, value] : json.items()) names.push_back(name);
      EXPECT_EQ(names, (std::vector<std::string>{"id", "custom_id", "response", "error"}));
      const std::string id = json["custom_id"];
      EXPECT_TRUE(out.emplace(id, std::move(json)).second) << id << " comes twice";
      at = end + 1;
    }
    return out;
  }

  TemporaryDirectory dir_{"batches"};
  std::atomic<std::int64_t> now_{1'700'000'000};
  bool keyed_ = false;
  KeptLog log_;
  LiveAnswers live_;
  ApiServerOptions server_;
  OpenDoor open_;
  std::unique_ptr<ServerMetrics> metrics_;
  std::unique_ptr<Store> store_;
  std::unique_ptr<KeyDoor> door_;
  std::unique_ptr<TestApi> api_;
  std::unique_ptr<BatchRunner> runner_;
};

class KeyedBatchApi : public BatchApi {
 protected:
  void SetUp() override {
    keyed_ = true;
    start();
  }
  CreatedApiKey key(QuotaLimits quotas = {}) {
    return store_->keys().create({.name = "test", .quotas = quotas}).value();
  }
  static std::string bearer(const CreatedApiKey& key) { return "Authorization: Bearer " + key.secret + "\r\n"; }
  std::string create_for(const CreatedApiKey& key, const std::string& content) {
    const Json body{
        {"input_file_id", file(content, key.key.id)}, {"endpoint", kCompletions}, {"completion_window", "24h"}};
    return api_->post("/v1/batches", body, bearer(key)).json.value("id", "");
  }
};

}  // namespace tailor::test
