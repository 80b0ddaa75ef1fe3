// Batches over the API.

#include "serve/test_batches.h"
#include "serve/test_packages.h"

namespace tailor {
namespace {

using test::BatchApi;
using test::JsonAnswer;
using test::kCompletions;
using test::KeyedBatchApi;
using test::line;
using test::lines;
using test::TestApi;
using namespace std::chrono_literals;

TEST_F(BatchApi, AFileOfRequestsIsAnswered) {
  const Json ask{{"model", "tiny"},
                 {"messages", {{{"role", "user"}, {"content", "Hi"}}}},
                 {"max_tokens", 4},
                 {"temperature", 0},
                 {"batch_invariant", true}};
  Json hot = ask, streamed = ask;
  hot["temperature"] = "hot";
  streamed["stream"] = true;
  const std::string chat = "/v1/chat/completions";
  const std::string id =
      create(line("a", ask, chat) + line("b", hot, chat) + line("c", ask, chat) + line("d", streamed, chat), chat,
             {{"metadata", {{"project", "x"}}}});
  const Json done = wait_for(id, "completed");
  EXPECT_EQ(done["object"], "batch");
  EXPECT_EQ(done["endpoint"], chat);
  EXPECT_EQ(done["model"], "tiny");
  EXPECT_EQ(done["metadata"]["project"], "x");
  EXPECT_EQ(done["expires_at"], now_ + 24 * 3600);
  for (const char* at : {"created_at", "in_progress_at", "finalizing_at", "completed_at"})
    EXPECT_EQ(done[at], now_.load()) << at;
  EXPECT_EQ(done["request_counts"], Json({{"total", 4}, {"completed", 2}, {"failed", 2}}));
  EXPECT_TRUE(done["errors"].is_null());
  const auto output = by_id(content(done["output_file_id"])), errors = by_id(content(done["error_file_id"]));
  ASSERT_EQ(output.size(), 2U);
  ASSERT_EQ(errors.size(), 2U);
  const Json& response = output.at("a")["response"];
  EXPECT_EQ(response["status_code"], 200);
  EXPECT_EQ(response["request_id"].get<std::string>().rfind("req-", 0), 0U);
  const Json live = api_->post(chat, ask).json;
  EXPECT_EQ(response["body"]["choices"], live["choices"]) << "the same handler";
  EXPECT_EQ(done["usage"]["output_tokens"], 8);
  EXPECT_EQ(done["usage"]["total_tokens"], 2 * live["usage"]["total_tokens"].get<int>());
  EXPECT_EQ(errors.at("b")["response"]["status_code"], 400);
  EXPECT_EQ(errors.at("b")["response"]["body"]["error"]["param"], "temperature");
  EXPECT_EQ(errors.at("d")["response"]["body"]["error"]["param"], "stream");
  const Json files = api_->get("/v1/files?purpose=batch_output").json["data"];
  EXPECT_EQ(files.size(), 2U);
  EXPECT_EQ(api_->get("/v1/batches").json["data"][0]["id"], id);
  EXPECT_TRUE(test::eventually([&] { return !std::filesystem::exists(dir_.path() / "store" / "runs" / id); }))
      << "what it worked with is gone";
  EXPECT_EQ(api_->post("/v1/batches/" + id + "/cancel", Json::object()).status, 400) << "it has ended";
}

TEST_F(BatchApi, OfEveryEndpoint) {
  const std::string vectors = create(line("a", {{"input", {"x", "y"}}}, "/v1/embeddings"), "/v1/embeddings");
  const std::string labels = create(line("a", {{"input", "x"}}, "/v1/classify"), "/v1/classify");
  const std::string texts = create(line("a", {{"prompt", {"x", "y"}}, {"max_tokens", 2}}));
  Json done = wait_for(vectors, "completed");
  EXPECT_EQ(by_id(content(done["output_file_id"])).at("a")["response"]["body"]["data"].size(), 2U);
  EXPECT_GT(done["usage"]["input_tokens"], 0);
  EXPECT_TRUE(done["model"].is_null());
  done = wait_for(labels, "completed");
  EXPECT_TRUE(done["output_file_id"].is_null());
  EXPECT_EQ(by_id(content(done["error_file_id"])).at("a")["response"]["body"]["error"]["code"], "model_not_supported");
  done = wait_for(texts, "completed");
  EXPECT_EQ(by_id(content(done["output_file_id"])).at("a")["response"]["body"]["choices"].size(), 2U);
}

/// Labels as they are told live, but for the time it took.
void expect_same_labels(Json batched, Json live) {
  for (Json* of : {&batched, &live}) of->erase("milliseconds");
  ASSERT_EQ(batched["data"].size(), live["data"].size());
  for (std::size_t i = 0; i < live["data"].size(); ++i) {
    Json &mine = batched["data"][i], &other = live["data"][i];
    ASSERT_EQ(mine.contains("probabilities"), other.contains("probabilities"));
    if (mine.contains("probabilities")) {
      for (const auto& [label, p] : other["probabilities"].items())
        EXPECT_NEAR(mine["probabilities"][label].get<double>(), p.get<double>(), 1e-4) << label;
    }
    EXPECT_EQ(mine.contains("confidence"), other.contains("confidence"));
    ASSERT_EQ(mine.contains("nearest"), other.contains("nearest"));
    for (std::size_t n = 0; mine.contains("nearest") && n < other["nearest"].size(); ++n)
      EXPECT_EQ(mine["nearest"][n]["text"], other["nearest"][n]["text"]);
    for (Json* of : {&mine, &other}) {
      for (const char* rounded : {"probabilities", "confidence", "nearest"}) of->erase(rounded);
    }
  }
  EXPECT_EQ(batched, live);
}

TEST_F(BatchApi, LabelsOfAPackageLineByLine) {
  test::write_neighbours_package(dir_.path() / "rows", true);
  api_->models().put(serve_package(dir_.path() / "rows", "rows", {.share = std::make_shared<ComputeShare>(1)}).value());
  const std::string classify = "/v1/classify";
  const std::map<std::string, Json> good{
      {"one", {{"model", "rows"}, {"input", "May I see the flat?"}}},
      {"several", {{"model", "rows"}, {"input", {"How much is the flat?", "The heating is broken again!"}}}},
      {"alone", {{"model", "rows"}, {"input", "How much is it?"}, {"label_only", true}}},
      {"near", {{"model", "rows"}, {"input", "Is it broken?"}, {"nearest", 2}}},
      {"plain", {{"model", "rows"}, {"input", "Is Friday free?"}, {"probabilities", false}}}};
  std::string text = line("number", {{"model", "rows"}, {"input", 5}}, classify);
  for (const auto& [id, body] : good) text += line(id, body, classify);
  text += line("decoder", {{"model", "tiny"}, {"input", "x"}}, classify);
  const Json done = wait_for(create(text, classify), "completed");
  EXPECT_EQ(done["request_counts"], Json({{"total", 7}, {"completed", 5}, {"failed", 2}}));
  EXPECT_TRUE(done["model"].is_null()) << "two models";
  const auto output = by_id(content(done["output_file_id"])), errors = by_id(content(done["error_file_id"]));
  ASSERT_EQ(output.size(), good.size());
  for (const auto& [id, body] : good) {
    SCOPED_TRACE(id);
    ASSERT_TRUE(output.contains(id));
    EXPECT_TRUE(output.at(id)["error"].is_null());
    EXPECT_EQ(output.at(id)["response"]["status_code"], 200);
    const JsonAnswer live = api_->post(classify, body);
    ASSERT_EQ(live.status, 200) << live.json;
    expect_same_labels(output.at(id)["response"]["body"], live.json);
  }
  EXPECT_EQ(output.at("one")["response"]["body"]["data"][0]["label"], "viewing");
  EXPECT_EQ(output.at("several")["response"]["body"]["data"][1]["label"], "complaint");
  EXPECT_EQ(output.at("near")["response"]["body"]["data"][0]["nearest"].size(), 2U);
  ASSERT_EQ(errors.size(), 2U);
  EXPECT_EQ(errors.at("number")["response"]["body"]["error"]["param"], "input");
  EXPECT_EQ(errors.at("decoder")["response"]["body"]["error"]["code"], "model_not_supported");
}

TEST_F(BatchApi, WrongFilesFailWithTheirLines) {
  const std::string body = "{\"model\": \"tiny\", \"prompt\": \"x\"}";
  const std::string id =
      create(line("a", {{"model", "tiny"}}) + line("a", {{"model", "tiny"}}) + line("b", {{"model", "none"}}));
  const Json failed = wait_for(id, "failed");
  EXPECT_EQ(failed["errors"]["object"], "list");
  ASSERT_EQ(failed["errors"]["data"].size(), 2U);
  EXPECT_EQ(failed["errors"]["data"][0]["code"], "duplicate_custom_id");
  EXPECT_EQ(failed["errors"]["data"][0]["line"], 2);
  EXPECT_EQ(failed["errors"]["data"][1]["code"], "model_not_found");
  EXPECT_EQ(failed["errors"]["data"][1]["line"], 3);
  EXPECT_EQ(failed["request_counts"]["total"], 0);
  EXPECT_TRUE(failed["output_file_id"].is_null());
  EXPECT_EQ(failed["failed_at"], now_.load());
}

TEST_F(BatchApi, RequestsThatAreRefused) {
  const std::string good = file(lines(1, 1));
  const auto param = [&](const Json& change) {
    Json body{{"input_file_id", good}, {"endpoint", kCompletions}, {"completion_window", "24h"}};
    body.update(change);
    const JsonAnswer got = api_->post("/v1/batches", body);
    EXPECT_EQ(got.status, 400) << body << got.json;
    return got.json["error"]["param"].is_string() ? got.json["error"]["param"].get<std::string>() : "";
  };
  EXPECT_EQ(param({{"input_file_id", nullptr}}), "input_file_id");
  EXPECT_EQ(param({{"input_file_id", "file-none"}}), "input_file_id");
  EXPECT_EQ(param({{"input_file_id", file("x", "", "fine-tune")}}), "input_file_id");
  EXPECT_EQ(param({{"endpoint", nullptr}}), "endpoint");
  EXPECT_EQ(param({{"endpoint", "/v1/files"}}), "endpoint");
  EXPECT_EQ(param({{"endpoint", "/v1/batches"}}), "endpoint");
  for (const char* window : {"", "h", "24", "0h", "169h", "24hh", "-1h", "1d"})
    EXPECT_EQ(param({{"completion_window", window}}), "completion_window");
  EXPECT_EQ(param({{"metadata", {{"a", 1}}}}), "metadata");
  EXPECT_EQ(param({{"metadata", {{"a", std::string(513, 'x')}}}}), "metadata");
  EXPECT_EQ(param({{"metadata", "x"}}), "metadata");
  EXPECT_EQ(api_->get("/v1/batches/batch_none").status, 404);
  EXPECT_EQ(api_->post("/v1/batches/batch_none/cancel", Json::object()).status, 404);
  EXPECT_EQ(api_->get("/v1/batches?limit=101").json["error"]["param"], "limit");
  EXPECT_TRUE(api_->get("/v1/batches").json["data"].empty());
  TestApi without;
  EXPECT_EQ(without.get("/v1/batches").status, 501);
}

TEST_F(BatchApi, CancellingKeepsWhatIsDone) {
  restart({.answers = 1, .input = {}, .clock = {}});
  const std::string id = create(lines(200, 100));
  wait_for_answers(id, 1);
  const JsonAnswer told = api_->post("/v1/batches/" + id + "/cancel", Json::object());
  EXPECT_EQ(told.status, 200);
  EXPECT_EQ(told.json["status"], "cancelling");
  EXPECT_EQ(api_->post("/v1/batches/" + id + "/cancel", Json::object()).status, 200) << "once more changes nothing";
  const Json done = wait_for(id, "cancelled");
  const auto output = by_id(content(done["output_file_id"])), errors = by_id(content(done["error_file_id"]));
  EXPECT_EQ(output.size(), done["request_counts"]["completed"].get<std::size_t>());
  EXPECT_GE(output.size(), 1U);
  EXPECT_EQ(output.size() + errors.size(), 200U);
  EXPECT_EQ(errors.at("199")["error"]["code"], "batch_cancelled");
  EXPECT_TRUE(errors.at("199")["response"].is_null());
  EXPECT_EQ(done["request_counts"]["failed"], 0);
  EXPECT_EQ(done["cancelled_at"], now_.load());
  EXPECT_TRUE(test::eventually([&] { return api_->engine().stats().running == 0; })) << "nor is anything computed";
}

TEST_F(BatchApi, AfterItsWindowTheRestIsNotAnswered) {
  restart({.answers = 1, .input = {}, .clock = {}});
  const std::string id = create(lines(200, 100), kCompletions, {{"completion_window", "2h"}});
  wait_for_answers(id, 1);
  now_ += 7199;
  wait_for_answers(id, look(id)["request_counts"]["completed"].get<int>() + 1);
  now_ += 1;
  const Json done = wait_for(id, "expired");
  EXPECT_GE(by_id(content(done["output_file_id"])).size(), 2U);
  EXPECT_EQ(by_id(content(done["error_file_id"])).at("199")["error"]["code"], "batch_expired");
  EXPECT_EQ(done["expired_at"], now_.load());
}

TEST_F(BatchApi, ARestartGoesOnWhereItWas) {
  restart({.answers = 2, .input = {}, .clock = {}});
  const std::string id = create(lines(40, 60));
  wait_for_answers(id, 3);
  stop();
  const auto spool = dir_.path() / "store" / "runs" / id / "output.jsonl";
  const std::string before = read_file(spool).value();
  ASSERT_GE(by_id(before).size(), 3U);
  ASSERT_LT(by_id(before).size(), 40U);
  start();
  const Json done = wait_for(id, "completed");
  const std::string after = content(done["output_file_id"]);
  EXPECT_EQ(after.rfind(before, 0), 0U) << "what was answered was asked again";
  EXPECT_EQ(by_id(after).size(), 40U);
  EXPECT_EQ(done["request_counts"]["completed"], 40);
  EXPECT_EQ(done["usage"]["output_tokens"], 40 * 60);
}

TEST_F(BatchApi, OneThatLostItsFileOverARestartKeepsItsAnswers) {
  restart({.answers = 1, .input = {}, .clock = {}});
  const std::string id = create(lines(200, 100));
  wait_for_answers(id, 1);
  stop();
  {
    const auto store = Store::open(dir_.path() / "store").value();
    store->files().remove(store->batches().find(id).value().input_file).value();
  }
  start();
  const Json failed = wait_for(id, "failed");
  EXPECT_EQ(failed["errors"]["data"][0]["code"], "file_not_found");
  EXPECT_GE(by_id(content(failed["output_file_id"])).size(), 1U);
}

TEST_F(BatchApi, ADeletedFileIsReadToItsEnd) {
  const std::string input = file(lines(60, 40));
  const JsonAnswer made =
      api_->post("/v1/batches", {{"input_file_id", input}, {"endpoint", kCompletions}, {"completion_window", "24h"}});
  const std::string id = made.json["id"];
  wait_for_answers(id, 1);
  store_->files().remove(input).value();
  EXPECT_EQ(wait_for(id, "completed")["request_counts"]["completed"], 60);
}

TEST_F(BatchApi, LiveRequestsAreAnsweredMeanwhileAndSeveralBatchesTakeTurns) {
  const std::string large = create(lines(300, 100)), small = create(lines(3, 4));
  wait_for(small, "completed");
  EXPECT_EQ(api_->post(kCompletions, {{"prompt", "x"}, {"max_tokens", 4}}).status, 200);
  EXPECT_EQ(look(large)["status"], "in_progress");
  api_->post("/v1/batches/" + large + "/cancel", Json::object());
  wait_for(large, "cancelled");
}

TEST_F(BatchApi, DrainedItBeginsNothing) {
  restart({.answers = 2, .input = {}, .clock = {}});
  const std::string id = create(lines(200, 50));
  wait_for_answers(id, 1);
  runner_->drain();
  EXPECT_TRUE(runner_->wait_idle(20s));
  const Json now = look(id);
  EXPECT_EQ(now["status"], "in_progress");
  EXPECT_EQ(api_->engine().stats().running, 0);
  EXPECT_EQ(look(id)["request_counts"], now["request_counts"]);
}

TEST_F(BatchApi, IsCountedByModelAndNotAsHttp) {
  wait_for(create(lines(5, 2)), "completed");
  const std::string text = metrics_->text(MetricText::Format::kPrometheus);
  EXPECT_NE(text.find("tailor_requests_total{model=\"tiny\",status=\"2xx\"} 5"), std::string::npos) << text;
  EXPECT_NE(text.find("route=\"/v1/completions\",status=\"2xx\"} 0"), std::string::npos);
  MetricText own(MetricText::Format::kPrometheus);
  runner_->write_metrics(own);
  const std::string told = std::move(own).finish();
  EXPECT_NE(told.find("tailor_batch_requests_total{outcome=\"completed\"} 5"), std::string::npos) << told;
  EXPECT_NE(told.find("tailor_batch_requests_running 0"), std::string::npos) << told;
}

TEST_F(KeyedBatchApi, BatchesAreTheirKeysAlone) {
  const CreatedApiKey mine = key(), other = key();
  const std::string id = create_for(mine, lines(2, 2));
  const Json done = wait_for(id, "completed", bearer(mine));
  EXPECT_EQ(api_->get("/v1/batches/" + id, bearer(other)).status, 404);
  EXPECT_EQ(api_->post("/v1/batches/" + id + "/cancel", Json::object(), bearer(other)).status, 404);
  EXPECT_TRUE(api_->get("/v1/batches", bearer(other)).json["data"].empty());
  EXPECT_EQ(api_->get("/v1/files/" + done["output_file_id"].get<std::string>(), bearer(other)).status, 404);
  EXPECT_EQ(by_id(content(done["output_file_id"], bearer(mine))).size(), 2U);
  const Json foreign{
      {"input_file_id", file(lines(1, 1), mine.key.id)}, {"endpoint", kCompletions}, {"completion_window", "24h"}};
  EXPECT_EQ(api_->post("/v1/batches", foreign, bearer(other)).json["error"]["param"], "input_file_id");
}

TEST_F(KeyedBatchApi, TokensCountForTheKeyAndRequestsDoNot) {
  const CreatedApiKey mine = key({.requests_per_minute = 50, .tokens_per_day = 100'000, .max_concurrent = 4});
  const std::string id = create_for(mine, lines(60, 5));
  const auto ended = [&] { return store_->batches().find(id).value().status == BatchStatus::kCompleted; };
  ASSERT_TRUE(test::eventually(ended)) << "asking over HTTP would take of its requests";
  const Json done = look(id, bearer(mine));
  EXPECT_EQ(done["request_counts"]["completed"], 60);
  const JsonAnswer live = api_->post(kCompletions, {{"prompt", "x"}, {"max_tokens", 1}}, bearer(mine));
  ASSERT_EQ(live.status, 200) << live.json;
  const int used = done["usage"]["total_tokens"].get<int>() + live.json["usage"]["total_tokens"].get<int>();
  EXPECT_EQ(*live.headers.find("x-ratelimit-remaining-tokens"), std::to_string(100'000 - used));
}

TEST_F(KeyedBatchApi, ARequestThatItsKeyCanNeverPayIsRefused) {
  const CreatedApiKey mine = key({.tokens_per_minute = 100});
  const Json done = wait_for(create_for(mine, lines(1, 200)), "completed", bearer(mine));
  EXPECT_EQ(done["request_counts"]["failed"], 1);
  EXPECT_EQ(by_id(content(done["error_file_id"], bearer(mine))).at("0")["response"]["status_code"], 429);
}

TEST_F(KeyedBatchApi, TheEndOfAKeyIsTheEndOfItsBatches) {
  restart({.answers = 2, .input = {}, .clock = {}});
  const CreatedApiKey mine = key();
  const std::string id = create_for(mine, lines(1000, 20));
  ASSERT_TRUE(test::eventually([&] { return store_->batches().find(id).value().completed > 0; }));
  store_->keys().revoke(mine.key.id).value();
  ASSERT_TRUE(test::eventually([&] { return store_->batches().find(id).value().status == BatchStatus::kFailed; }));
  const Batch failed = store_->batches().find(id).value();
  EXPECT_EQ(failed.errors[0]["code"], "invalid_api_key");
  EXPECT_FALSE(failed.output_file.empty()) << "what was answered stays";
}

}  // namespace
}  // namespace tailor
