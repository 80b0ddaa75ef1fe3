// The end of a model that a fine-tuning job made: DELETE /v1/models/{id}.

#include <gtest/gtest.h>

#include <algorithm>

#include "serve/batch_runner.h"
#include "serve/key_door.h"
#include "serve/test_api.h"
#include "serve/test_log.h"
#include "serve/test_tuner.h"

namespace tailor {
namespace {

using test::JsonAnswer;
using test::TestApi;
namespace fs = std::filesystem;

class FineTunedModels : public ::testing::Test {
 protected:
  void SetUp() override { start(); }
  void start() {
    store_ = Store::open(dir_.path() / "store").value();
    door_ = std::make_unique<KeyDoor>(*store_, log_);
    api_ = std::make_unique<TestApi>(ApiServerOptions{}, ModelLoadOptions{}, door_.get());
    ModelLoadOptions load;
    load.share = std::make_shared<ComputeShare>(1);
    tuning_ = std::make_unique<FineTuning>(*store_, api_->models(), tuner_, load, log_);
    tuning_->serve_finished();
    api_->api().services().store = store_.get();
    api_->api().services().tuning = tuning_.get();
  }
  void stop() {
    api_->server().stop();
    tuning_.reset();
    api_.reset();
    door_.reset();
    store_.reset();
  }
  void TearDown() override { stop(); }

  CreatedApiKey key(Scopes scopes = {Scope::kInfer}) {
    return store_->keys().create({.name = "test", .scopes = scopes}).value();
  }
  /// Entries of the audit log; those of keys are left out.
  std::vector<AuditRecord> audited() {
    auto entries = store_->audit().entries(0, 100).value();
    std::erase_if(entries, [](const AuditRecord& record) { return record.entry.action == "key.create"; });
    return entries;
  }
  static std::string shown(const CreatedApiKey& key) { return "X-Api-Key: " + key.secret + "\r\n"; }
  /// A job that has made its model.
  Job tuned(const std::string& owner = "", const std::string& base = "tiny") {
    const std::string file = store_->files().add("a.jsonl", "fine-tune", owner, "good data").value().id;
    const std::string id = tuning_->create(owner, {{"model", base}, {"training_file", file}}).value().value().id;
    EXPECT_TRUE(test::eventually([&] { return store_->jobs().find(id).value().status == JobStatus::kSucceeded; }));
    return store_->jobs().find(id).value();
  }
  static std::string model_of(const Job& job) { return job.result["fine_tuned_model"]; }
  fs::path run_of(const Job& job) const { return dir_.path() / "store" / "runs" / job.id; }
  JsonAnswer remove(const std::string& model, const std::string& fields = "") {
    const test::Answer answer =
        api_->client().ask("DELETE /v1/models/" + model + " HTTP/1.1\r\nHost: localhost\r\n" + fields + "\r\n");
    return {answer.status, answer.headers, Json::parse(answer.body, nullptr, false)};
  }
  bool is_served(const std::string& model, const std::string& fields = "") {
    const int status = api_->post("/v1/completions", completion(model), fields).status;
    EXPECT_EQ(api_->get("/v1/models/" + model, fields).status, status);
    EXPECT_TRUE(status == 200 || status == 404) << status;
    return status == 200;
  }
  static Json completion(const std::string& model, const Json& more = Json::object()) {
    Json body{{"model", model}, {"prompt", "x"}, {"max_tokens", 2}, {"ignore_eos", true}};
    body.update(more);
    return body;
  }

  TemporaryDirectory dir_{"tuned-models"};
  test::KeptLog log_;
  test::DoubleTuner tuner_;
  std::unique_ptr<Store> store_;
  std::unique_ptr<KeyDoor> door_;
  std::unique_ptr<TestApi> api_;
  std::unique_ptr<FineTuning> tuning_;
};

TEST_F(FineTunedModels, OneOfABaseWhoseNameHoldsASlashIsDeleted) {
  ModelLoadOptions load{.cache_bytes = std::uint64_t{64} << 20, .share = std::make_shared<ComputeShare>(1)};
  api_->models().put(serve_base_model(testing::tiny_llama().string(), "org/tiny", load).value());
  for (const bool encoded : {false, true}) {
    std::string name = model_of(tuned("", "org/tiny"));
    EXPECT_EQ(name.rfind("ft:org/tiny:", 0), 0u) << name;
    EXPECT_TRUE(is_served(name));
    std::string path = name;
    if (encoded) path.replace(path.find('/'), 1, "%2F");
    EXPECT_EQ(remove(path).json, (Json{{"id", name}, {"object", "model"}, {"deleted", true}}));
    EXPECT_FALSE(is_served(name));
  }
}

TEST_F(FineTunedModels, TheKeyOfTheJobDeletesItAndItStaysGone) {
  const CreatedApiKey mine = key();
  const std::string fields = shown(mine);
  const Job job = tuned(mine.key.id), kept = tuned(mine.key.id);
  const std::string model = model_of(job);
  ASSERT_TRUE(is_served(model, fields));
  ASSERT_TRUE(fs::exists(run_of(job) / "package"));
  const JsonAnswer deleted = remove(model, fields);
  ASSERT_EQ(deleted.status, 200) << deleted.json;
  EXPECT_EQ(deleted.json, Json({{"id", model}, {"object", "model"}, {"deleted", true}}));
  const auto check = [&] {
    EXPECT_FALSE(is_served(model, fields));
    EXPECT_TRUE(is_served(model_of(kept), fields));
    EXPECT_EQ(api_->get("/v1/models", fields).json["data"].size(), 2U) << "the base model and the other one";
    EXPECT_FALSE(fs::exists(run_of(job))) << "with its checkpoints and report";
    EXPECT_TRUE(fs::exists(run_of(kept) / "package"));
    const Json record = api_->get("/v1/fine_tuning/jobs/" + job.id, fields).json;
    EXPECT_EQ(record["status"], "succeeded");
    EXPECT_EQ(record["fine_tuned_model"], model) << "the job keeps its record";
    EXPECT_EQ(api_->get("/v1/fine_tuning/jobs/" + job.id + "/checkpoints", fields).json["data"].size(), 1U);
    EXPECT_EQ(api_->get("/v1/files/" + record["result_files"][0].get<std::string>(), fields).status, 200);
    const JsonAnswer again = remove(model, fields);
    EXPECT_EQ(again.status, 404);
    EXPECT_EQ(again.json["error"]["code"], "model_not_found");
  };
  check();
  stop();
  start();
  check();
  const auto entries = audited();
  ASSERT_EQ(entries.size(), 1U) << "done once";
  EXPECT_EQ(entries[0].entry.actor, mine.key.id);
  EXPECT_EQ(entries[0].entry.action, "model.delete");
  EXPECT_EQ(entries[0].entry.object, model);
  EXPECT_EQ(entries[0].entry.details["job"], job.id);
}

TEST_F(FineTunedModels, OtherKeysNeitherSeeNorUseThem) {
  const CreatedApiKey mine = key(), other = key(), admin = key({Scope::kInfer, Scope::kAdmin});
  const std::string model = model_of(tuned(mine.key.id));
  const auto seen_by = [&](const CreatedApiKey& who) {
    const Json list = api_->get("/v1/models", shown(who)).json["data"];
    const auto is_it = [&](const Json& m) { return m["id"] == model; };
    const bool listed = std::any_of(list.begin(), list.end(), is_it);
    const bool served = is_served(model, shown(who));
    EXPECT_EQ(listed, served);
    const Json words{{"model", model}, {"content", "x"}, {"messages", {{{"role", "user"}, {"content", "x"}}}}};
    for (const char* path : {"/tokenize", "/apply-template"})
      EXPECT_EQ(api_->post(path, words, shown(who)).status, served ? 200 : 404) << path;
    EXPECT_EQ(api_->get("/tokenizer_info?model=" + model, shown(who)).status, served ? 200 : 404);
    for (const char* path : {"/v1/chat/completions", "/v1/classify", "/v1/embeddings", "/v1/tag", "/v1/extract"})
      EXPECT_EQ(api_->post(path, words, shown(who)).status == 404, !served) << path;
    return served;
  };
  const auto check = [&] {
    EXPECT_TRUE(seen_by(mine));
    EXPECT_TRUE(seen_by(admin));
    EXPECT_FALSE(seen_by(other));
    const JsonAnswer refused = api_->post("/v1/completions", completion(model), shown(other));
    EXPECT_EQ(refused.json["error"]["code"], "model_not_found");
    EXPECT_NE(refused.json["error"]["message"].get<std::string>().find("there is tiny"), std::string::npos)
        << refused.json;
    EXPECT_EQ(remove(model, shown(other)).json["error"], api_->get("/v1/models/" + model, shown(other)).json["error"])
        << "as if there were none";
  };
  check();
  stop();
  start();
  check();
}

TEST_F(FineTunedModels, BatchesUseWhatTheirKeyMay) {
  const CreatedApiKey mine = key(), other = key();
  const std::string model = model_of(tuned(mine.key.id));
  BatchRunner runner(api_->api().services(), *door_, api_->api().observers(), {.input = {}, .clock = {}});
  api_->api().services().batches = &runner;
  const auto outcome = [&](const CreatedApiKey& who) {
    const Json line{{"custom_id", "a"}, {"method", "POST"}, {"url", "/v1/completions"}, {"body", completion(model)}};
    const std::string file = store_->files().add("in.jsonl", "batch", who.key.id, dump_json(line) + "\n").value().id;
    const Json made =
        api_->post("/v1/batches",
                   {{"input_file_id", file}, {"endpoint", "/v1/completions"}, {"completion_window", "24h"}}, shown(who))
            .json;
    const std::string path = "/v1/batches/" + made.value("id", "");
    Json batch;
    EXPECT_TRUE(test::eventually([&] {
      batch = api_->get(path, shown(who)).json;
      return batch["status"] == "completed" || batch["status"] == "failed";
    })) << batch;
    return batch;
  };
  const Json done = outcome(mine), refused = outcome(other);
  EXPECT_EQ(done["request_counts"]["completed"], 1) << done;
  EXPECT_EQ(refused["status"], "failed") << "as of a model that there is not";
  EXPECT_EQ(refused["errors"]["data"][0]["code"], "model_not_found") << refused;
  EXPECT_EQ(outcome(key({Scope::kInfer, Scope::kAdmin}))["request_counts"]["completed"], 1);
  api_->server().stop();
  api_->api().services().batches = nullptr;
}

TEST_F(FineTunedModels, WhatTheOperatorServesIsThereForAll) {
  const CreatedApiKey mine = key(), other = key();
  const Job job = tuned(mine.key.id);
  api_->models().put(serve_adapter(*api_->models().find("tiny"), run_of(job) / "package", "support").value());
  EXPECT_TRUE(is_served("support", shown(other)));
  EXPECT_FALSE(is_served(model_of(job), shown(other)));
}

TEST_F(FineTunedModels, OtherKeysMayNotDeleteThemUnlessTheyAdminister) {
  const CreatedApiKey mine = key();
  const Job job = tuned(mine.key.id);
  const std::string model = model_of(job);
  const JsonAnswer other = remove(model, shown(key()));
  EXPECT_EQ(other.status, 404);
  EXPECT_EQ(other.json["error"]["code"], "model_not_found");
  EXPECT_EQ(remove(model, shown(key({Scope::kMetrics}))).json["error"]["code"], "insufficient_scope");
  EXPECT_EQ(remove(model).status, 401);
  EXPECT_TRUE(is_served(model, shown(mine)));
  EXPECT_TRUE(audited().empty());
  const CreatedApiKey admin = key({Scope::kAdmin});
  EXPECT_EQ(remove(model, shown(admin)).status, 200);
  EXPECT_FALSE(is_served(model, shown(mine)));
  EXPECT_EQ(audited().at(0).entry.actor, admin.key.id);
}

TEST_F(FineTunedModels, OfTheTimeBeforeKeysAnAdministratorDeletes) {
  const Job first = tuned(), second = tuned();
  EXPECT_EQ(remove(model_of(first)).status, 200) << "without keys everybody is the same one";
  EXPECT_EQ(store_->audit().entries(0, 10).value().at(0).entry.actor, "nobody");
  const CreatedApiKey later = key(), admin = key({Scope::kAdmin});
  EXPECT_TRUE(is_served(model_of(second), shown(later))) << "it was everybody's when it was made";
  const JsonAnswer refused = remove(model_of(second), shown(later));
  EXPECT_EQ(refused.status, 403);
  EXPECT_EQ(refused.json["error"]["type"], "permission_error");
  EXPECT_EQ(refused.json["error"]["code"], "not_its_owner");
  EXPECT_EQ(remove(model_of(second), shown(admin)).status, 200);
}

TEST_F(FineTunedModels, WhatNoJobMadeIsNotDeleted) {
  testing::write_tiny_adapter(dir_.path() / "adapter.gguf");
  api_->models().put(serve_adapter(*api_->models().find("tiny"), dir_.path(), "support").value());
  for (const char* name : {"tiny", "support"}) {
    const JsonAnswer refused = remove(name);
    EXPECT_EQ(refused.status, 400) << name;
    EXPECT_EQ(refused.json["error"]["type"], "invalid_request_error");
    EXPECT_EQ(refused.json["error"]["code"], "model_not_fine_tuned");
    EXPECT_EQ(refused.json["error"]["param"], "model");
    EXPECT_NE(refused.json["error"]["message"].get<std::string>().find("by no fine-tuning job"), std::string::npos);
    EXPECT_TRUE(is_served(name));
  }
  for (const char* name : {"other", "ft:tiny:tailor::none", "%20"}) {
    const JsonAnswer unknown = remove(name);
    EXPECT_EQ(unknown.status, 404) << name;
    EXPECT_EQ(unknown.json["error"]["code"], "model_not_found");
  }
  EXPECT_TRUE(store_->audit().entries(0, 10).value().empty());
  TestApi without;  // a store
  const auto status = [&](const std::string& name) {
    return without.client().ask("DELETE /v1/models/" + name + " HTTP/1.1\r\nHost: localhost\r\n\r\n").status;
  };
  EXPECT_EQ(status("tiny"), 400);
  EXPECT_EQ(status("other"), 404);
}

TEST_F(FineTunedModels, RequestsThatRunEndWell) {
  const std::string model = model_of(tuned());
  auto running = api_->client();
  running.send(
      TestApi::post_text("/v1/completions", dump_json(completion(model, {{"stream", true}, {"max_tokens", 400}}))));
  ASSERT_TRUE(running.read_through("\"text\":").has_value());
  EXPECT_EQ(remove(model).status, 200);
  EXPECT_FALSE(is_served(model));
  ASSERT_TRUE(running.read_through("\"finish_reason\":\"length\"").has_value());
  EXPECT_TRUE(running.read_through("data: [DONE]").has_value());
}

TEST_F(FineTunedModels, WhatIsNotServedAnyMoreIsDeletedAllTheSame) {
  const Job unloaded = tuned(), without_base = tuned();
  EXPECT_TRUE(api_->models().remove(model_of(unloaded)));
  EXPECT_EQ(remove(model_of(unloaded)).status, 200);
  EXPECT_TRUE(api_->models().remove("tiny"));
  EXPECT_EQ(remove(model_of(without_base)).status, 200);
  EXPECT_FALSE(fs::exists(run_of(unloaded)) || fs::exists(run_of(without_base)));
}

TEST_F(FineTunedModels, AServerKilledBeforeTheFilesWereGoneRemovesThemLater) {
  const Job job = tuned();
  store_->jobs().remove_model(job.id, "nobody").value();
  EXPECT_TRUE(fs::exists(run_of(job) / "package"));
  stop();
  start();
  EXPECT_FALSE(fs::exists(run_of(job)));
  EXPECT_FALSE(is_served(model_of(job)));
  EXPECT_EQ(log_.all().find("is not served"), std::string::npos) << log_.all();
}

TEST_F(FineTunedModels, ModelsOfJobsThatHaveNotEndedAreNone) {
  tuner_.go = false;
  const std::string file = store_->files().add("a.jsonl", "fine-tune", "", "good data").value().id;
  const std::string id = tuning_->create("", {{"model", "tiny"}, {"training_file", file}}).value().value().id;
  ASSERT_TRUE(tuner_.begun.wait());
  EXPECT_EQ(remove("ft:tiny:tailor::" + id.substr(id.size() - 8)).status, 404);
  tuner_.go = true;
  EXPECT_TRUE(test::eventually([&] { return store_->jobs().find(id).value().status == JobStatus::kSucceeded; }));
}

}  // namespace
}  // namespace tailor
