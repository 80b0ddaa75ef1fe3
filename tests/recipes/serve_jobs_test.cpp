// Jobs and uploads of `tailor serve` where something fails: killed servers, full disks, clients that go.

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <sstream>

#include "core/hash.h"
#include "core/rng.h"
#include "store/database.h"
#include "store/schema.h"
#include "tests/recipes/chaos.h"

namespace tailor::test {
namespace {

namespace fs = std::filesystem;

std::string conversations() {
  return small_conversations([](const char* thing, std::size_t i) { return fmt::format("{} {}", thing, i); });
}

std::string create_job(const Served& server, const std::string& file, int epochs) {
  const Json job =
      server.ask("POST", "/v1/fine_tuning/jobs",
                 {{"model", "tiny-llama"}, {"training_file", file}, {"hyperparameters", {{"n_epochs", epochs}}}});
  return job.value("id", "");
}

Json job_of(const Served& server, const std::string& id) {
  return server.ask("GET", "/v1/fine_tuning/jobs/" + id);
}

/// Messages of all its events, the oldest first.
std::vector<std::string> messages_of(const Served& server, const std::string& id) {
  std::vector<std::string> out;
  std::string after;
  for (bool more = true; more;) {
    const Json page = server.ask("GET", "/v1/fine_tuning/jobs/" + id + "/events?limit=1000&order=asc" + after);
    for (const Json& event : page["data"]) out.push_back(event["message"]);
    more = page["has_more"].get<bool>();
    if (more) after = "&after=" + page["last_id"].get<std::string>();
  }
  return out;
}

bool has(const std::vector<std::string>& messages, std::string_view part) {
  return std::any_of(messages.begin(), messages.end(), [&](const std::string& m) { return contains(m, part); });
}

TEST(ServeJobs, KilledAtAnyMomentAJobGoesOnAndFinishedOnesStay) {
  if (!fs::exists(program().parent_path() / "tailor-tune")) GTEST_SKIP() << "this build has no tailor-tune";
  const TemporaryDirectory dir{place()};
  const std::vector<std::string> arguments{
      "--model", model_file(), "--threads", "2", "--no-request-log", "--data", (dir.path() / "data").string()};
  Rng rng(20261130);
  std::string file, job;
  std::map<std::string, std::string> finished;  // and their models
  bool killed_running = false;
  const auto check_finished = [&](const Served& server) {
    for (const auto& [id, model] : finished) {
      EXPECT_EQ(job_of(server, id)["status"], "succeeded") << id;
      const Json answer = server.ask("POST", "/v1/completions", {{"model", model}, {"prompt", "x"}, {"max_tokens", 1}});
      EXPECT_EQ(answer["model"], model) << "served again after the restart";
    }
  };
  for (int round = 0; round < kills(); ++round) {
    Served server(arguments);
    ASSERT_FALSE(server.line().empty()) << "in round " << round;
    check_finished(server);
    if (file.empty()) file = server.upload(conversations(), "fine-tune", "chat.jsonl");
    if (job.empty()) job = create_job(server, file, 3);
    // The first as soon as it trains (a fast machine is done in two seconds), every third at whatever moment, the
    // others at one after it has begun.
    const auto until = std::chrono::steady_clock::now() + std::chrono::milliseconds(round == 0 ? 0 : rng.below(2500));
    Json now;
    do {
      now = job_of(server, job);
    } while (now["status"] != "succeeded" && now["status"] != "failed" &&
             (std::chrono::steady_clock::now() < until || (round % 3 != 2 && now["status"] != "running")));
    ASSERT_NE(now["status"], "failed") << now;
    killed_running = killed_running || now["status"] == "running";
    if (now["status"] == "succeeded") {
      finished[job] = now["fine_tuned_model"];
      job.clear();
    }
    server.signal(SIGKILL);
    ASSERT_EQ(server.wait(), -SIGKILL) << "it ended by itself";
  }
  Served server(arguments);
  check_finished(server);
  if (job.empty()) job = create_job(server, file, 1);
  Json now;
  ASSERT_TRUE(asked_until([&] {
    now = job_of(server, job);
    return now["status"] == "succeeded" || now["status"] == "failed";
  })) << now;
  EXPECT_EQ(now["status"], "succeeded") << now;
  EXPECT_TRUE(killed_running);
  const auto last = messages_of(server, job);
  EXPECT_TRUE(has(last, "successfully completed")) << ::testing::PrintToString(last);
  if (finished.empty()) {
    EXPECT_TRUE(has(last, "the job will be resumed")) << ::testing::PrintToString(last);
    EXPECT_TRUE(has(last, "goes on")) << ::testing::PrintToString(last);
  }
  const Json listed = server.ask("GET", "/v1/fine_tuning/jobs?limit=100");
  EXPECT_EQ(listed["data"].size(), finished.size() + 1) << "no job is lost and none is there twice";
  server.signal(SIGTERM);
  EXPECT_EQ(server.wait(), 0);
}

TEST(ServeJobs, WhatWasTrainedIsNotTrainedAgainWhereAServerEndedBeforeItCouldTell) {
  if (!fs::exists(program().parent_path() / "tailor-tune")) GTEST_SKIP() << "this build has no tailor-tune";
  const TemporaryDirectory dir{place()};
  const fs::path data = dir.path() / "data";
  const std::vector<std::string> arguments{"--model",          model_file(), "--threads",  "2",
                                           "--no-request-log", "--data",     data.string()};
  std::string id;
  const auto succeeded = [&](const Served& server) {
    Json now;
    EXPECT_TRUE(asked_until([&] { return (now = job_of(server, id))["status"] == "succeeded"; })) << now;
    return now;
  };
  Json first;
  {
    Served server(arguments);
    id = create_job(server, server.upload(conversations(), "fine-tune", "chat.jsonl"), 1);
    first = succeeded(server);
    server.signal(SIGTERM);
    server.wait();
  }
  {
    const Database database = Database::open(data / "store.sqlite", store_migrations()).value();
    std::string trigger;
    Transaction transaction = database.write().value();
    transaction
        .first("SELECT sql FROM sqlite_schema WHERE name = 'finished_jobs_stay'", {},
               [&](const Row& row) -> Status {
                 trigger = row.text(0);
                 return {};
               })
        .value();
    transaction.run("DROP TRIGGER finished_jobs_stay").value();
    transaction.run("UPDATE jobs SET status = 'running', finished_at = NULL, result = '{}'").value();
    transaction.run(trigger).value();
    transaction.commit().value();
  }
  const auto trained = fs::last_write_time(data / "runs" / id / "result.json");
  Served server(arguments);
  const Json second = succeeded(server);
  EXPECT_EQ(fs::last_write_time(data / "runs" / id / "result.json"), trained);
  for (const char* field : {"fine_tuned_model", "trained_tokens", "hyperparameters"})
    EXPECT_EQ(second[field], first[field]) << field;
  const auto messages = messages_of(server, id);
  EXPECT_EQ(std::count_if(messages.begin(), messages.end(),
                          [](const std::string& m) { return contains(m, "Step 1: training loss"); }),
            1);
}

TEST(ServeJobs, ADiskThatFillsFailsTheJobAndNotTheServer) {
  if (!fs::exists(program().parent_path() / "tailor-tune")) GTEST_SKIP() << "this build has no tailor-tune";
  SmallDisk disk("32m");
  if (!disk.mounted()) GTEST_SKIP() << "a small disk needs the right to mount one (root)";
  const fs::path data = disk.path() / "data";
  Served server({"--model", model_file(), "--threads", "2", "--no-request-log", "--data", data.string()});
  const std::string file = server.upload(conversations(), "fine-tune", "chat.jsonl");
  Json now;
  for (const char* const moment : {"started", "Step "}) {
    SCOPED_TRACE(moment);
    const std::string job = create_job(server, file, 50);
    ASSERT_TRUE(asked_until([&] { return has(messages_of(server, job), moment); })) << job_of(server, job);
    disk.fill(0);
    ASSERT_TRUE(asked_until([&] { return (now = job_of(server, job))["status"] != "running"; })) << now;
    EXPECT_EQ(now["status"], "failed") << now;
    EXPECT_EQ(now["error"]["code"], "storage_error") << now;
    EXPECT_TRUE(contains(now["error"]["message"].get<std::string>(), "No space left")) << now;
    EXPECT_TRUE(now["fine_tuned_model"].is_null());
    EXPECT_TRUE(now["result_files"].empty()) << now;
    EXPECT_EQ(server.ask("GET", "/v1/models")["data"].size(), 1U) << "nothing of it is served";
    EXPECT_EQ(server.ask("GET", "/v1/files")["data"].size(), 1U) << "the training file alone";
    EXPECT_TRUE(server.ask("GET", "/v1/fine_tuning/jobs/" + job + "/checkpoints")["data"].empty());
    EXPECT_FALSE(fs::exists(data / "runs" / job)) << "what was half made is gone";
    disk.empty();
  }
  // The server lives, and says of an upload what is the matter.
  EXPECT_EQ(server.ask("POST", "/v1/completions", {{"prompt", "x"}, {"max_tokens", 1}})["object"], "text_completion");
  disk.fill(0);
  const std::string form =
      "--B\r\nContent-Disposition: form-data; name=\"purpose\"\r\n\r\nbatch\r\n"
      "--B\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a\"\r\n\r\n" +
      std::string(3'000'000, 'x') + "\r\n--B--\r\n";
  const Answer full =
      server.client().ask(Served::request("POST", "/v1/files", form, "multipart/form-data; boundary=B"));
  EXPECT_EQ(full.status, 507) << full.body;
  disk.empty();
  EXPECT_EQ(server.ask("GET", "/v1/files")["data"].size(), 1U);
  const std::string second = create_job(server, file, 1);
  ASSERT_TRUE(asked_until([&] {
    now = job_of(server, second);
    return now["status"] == "succeeded" || now["status"] == "failed";
  })) << now;
  EXPECT_EQ(now["status"], "succeeded") << "once there is room: " << now;
}

TEST(ServeJobs, WithoutTailorTuneAJobIsRefusedAtOnce) {
  const TemporaryDirectory dir{place()};
  setenv("TAILOR_TUNE", (dir.path() / "none").c_str(), 1);
  Served server({"--model", model_file(), "--threads", "1", "--no-request-log"});
  unsetenv("TAILOR_TUNE");
  const std::string file = server.upload(conversations(), "fine-tune", "chat.jsonl");
  const Json refused =
      server.ask("POST", "/v1/fine_tuning/jobs", {{"model", "tiny-llama"}, {"training_file", file}}, 501)["error"];
  EXPECT_EQ(refused["type"], "not_supported_error");
  EXPECT_EQ(refused["code"], "training_not_available");
  const std::string message = refused["message"];
  EXPECT_TRUE(contains(message, "no tailor-tune") && contains(message, "make setup && make build")) << message;
  EXPECT_FALSE(contains(message, dir.path().string())) << message;
  EXPECT_TRUE(server.ask("GET", "/v1/fine_tuning/jobs")["data"].empty()) << "nothing that fails later";
}

/// Sentences that have the same words in another order each.
std::string sentences(int count, Rng& rng) {
  const char* const things[] = {"flat", "garage", "garden", "kitchen", "cellar", "attic"};
  const char* const states[] = {"free", "let", "sold", "too small", "being built", "on the third floor"};
  std::string out;
  for (int i = 0; i < count; ++i) {
    const std::string text =
        fmt::format("The {} {} is {}, the {} {} is {}.", things[rng.below(6)], i, states[rng.below(6)],
                    things[rng.below(6)], rng.below(90), states[rng.below(6)]);
    out += dump_json({{"text", text}}) + "\n";
  }
  return out;
}

/// Losses and hits of texts by a model that is served, from the log-probabilities of their own tokens.
struct TextFigures {
  double loss = 0, accuracy = 0, tokens = 0;
};
TextFigures figures_of(const Served& server, const std::string& model, const std::string& lines) {
  const Json info = server.ask("GET", "/tokenizer_info?model=" + model);
  const Json end = server.ask("POST", "/tokenize", {{"model", model}, {"content", info["eos_token"]}})["tokens"];
  TextFigures out;
  std::istringstream in(lines);
  for (std::string line; std::getline(in, line);) {
    Json tokens = server.ask("POST", "/tokenize", {{"model", model}, {"content", Json::parse(line)["text"]}})["tokens"];
    tokens.insert(tokens.end(), end.begin(), end.end());
    const Json answer = server.ask(
        "POST", "/v1/completions",
        {{"model", model}, {"prompt", tokens}, {"echo", true}, {"max_tokens", 0}, {"logprobs", 1}})["choices"][0];
    const Json& own = answer["logprobs"]["token_logprobs"];
    const Json& top = answer["logprobs"]["top_logprobs"];
    for (std::size_t i = 1; i < tokens.size(); ++i) {
      double best = -1e9;
      for (const auto& [token, value] : top[i].items()) best = std::max(best, value.get<double>());
      out.loss -= own[i].get<double>();
      out.accuracy += own[i].get<double>() >= best ? 1 : 0;
      ++out.tokens;
    }
  }
  out.loss /= out.tokens;
  out.accuracy /= out.tokens;
  return out;
}

/// The columns of a results file, by their names; a field without a number is not there.
std::map<std::string, std::map<int, double>> columns_of(const std::string& csv) {
  std::map<std::string, std::map<int, double>> out;
  std::vector<std::string> names;
  std::istringstream lines(csv);
  for (std::string line; std::getline(lines, line);) {
    std::istringstream fields(line);
    std::vector<std::string> row;
    for (std::string field; std::getline(fields, field, ',');) row.push_back(field);
    if (names.empty()) {
      names = row;
      continue;
    }
    for (std::size_t i = 1; i < row.size(); ++i) {
      if (!row[i].empty()) out[names[i]][std::stoi(row[0])] = std::stod(row[i]);
    }
  }
  return out;
}

// With code for OpenAI as it is: the model has the name that the code asks for.
TEST(ServeJobs, TellsWhatItTrainedWithAndWhatWasKept) {
  if (!fs::exists(program().parent_path() / "tailor-tune")) GTEST_SKIP() << "this build has no tailor-tune";
  const TemporaryDirectory dir{place()};
  const fs::path data = dir.path() / "data", config = dir.path() / "serve.yaml";
  write_file_atomic(config, fmt::format("models:\n  - name: gpt-4o-mini-2024-07-18\n    model: {}\n", model_file()))
      .value();
  Served server({"--config", config.string(), "--threads", "2", "--no-request-log", "--data", data.string()});
  Rng rng(20261130);
  const std::string training = sentences(40, rng), validation = sentences(12, rng);
  constexpr int kEpochs = 12;
  Json job = server.ask(
      "POST", "/v1/fine_tuning/jobs",
      {{"model", "gpt-4o-mini-2024-07-18"},
       {"training_file", server.upload(training, "fine-tune", "train.jsonl")},
       {"validation_file", server.upload(validation, "fine-tune", "valid.jsonl")},
       {"method",
        {{"type", "supervised"},
         {"supervised", {{"hyperparameters", {{"n_epochs", kEpochs}, {"learning_rate_multiplier", 50}}}}}}}});
  EXPECT_EQ(job["hyperparameters"]["batch_size"], "auto");
  const std::string id = job["id"], path = "/v1/fine_tuning/jobs/" + id;
  ASSERT_TRUE(asked_until([&] {
    job = job_of(server, id);
    return job["status"] == "succeeded" || job["status"] == "failed";
  })) << job;
  ASSERT_EQ(job["status"], "succeeded") << job;
  const std::string model = job["fine_tuned_model"];
  EXPECT_TRUE(model.starts_with("ft:gpt-4o-mini-2024-07-18:tailor:")) << model;

  const Json result = read_json(data / "runs" / id / "result.json").value();
  EXPECT_EQ(job["seed"], result["seed"]);
  EXPECT_EQ(job["hyperparameters"], Json({{"n_epochs", kEpochs},
                                          {"batch_size", result["settings"]["batch_size"]},
                                          {"learning_rate_multiplier", 50}}));
  EXPECT_EQ(job["method"]["supervised"]["hyperparameters"], job["hyperparameters"]);

  const auto columns =
      columns_of(server.client()
                     .ask(Served::request(
                         "GET", fmt::format("/v1/files/{}/content", job["result_files"][0].get<std::string>()), ""))
                     .body);
  const int steps = result["steps"];
  const std::map<int, double>& valid = columns.at("valid_loss");
  EXPECT_EQ(columns.at("train_loss").size(), static_cast<std::size_t>(steps));
  EXPECT_EQ(columns.at("train_accuracy").size(), static_cast<std::size_t>(steps));
  EXPECT_EQ(valid.size(), static_cast<std::size_t>(kEpochs));
  EXPECT_EQ(columns.at("valid_mean_token_accuracy").size(), valid.size());
  EXPECT_EQ(columns.at("full_valid_loss"), valid);
  const auto by_loss = [](const auto& a, const auto& b) { return a.second < b.second; };
  const auto best = std::min_element(valid.begin(), valid.end(), by_loss);
  ASSERT_LT(best->first, valid.rbegin()->first) << "else the last step and the kept one are the same";
  EXPECT_GT(columns.at("train_accuracy").rbegin()->second, columns.at("train_accuracy").begin()->second + 0.3);

  const Json checkpoints = server.ask("GET", path + "/checkpoints")["data"];
  ASSERT_EQ(checkpoints.size(), 1U);
  EXPECT_EQ(checkpoints[0]["step_number"], best->first);
  const Json kept = checkpoints[0]["metrics"];
  EXPECT_EQ(kept["step"], best->first);
  EXPECT_NEAR(kept["valid_loss"].get<double>(), best->second, 1e-4);
  EXPECT_NEAR(kept["train_loss"].get<double>(), columns.at("train_loss").at(best->first), 1e-4);
  EXPECT_NEAR(kept["train_mean_token_accuracy"].get<double>(), columns.at("train_accuracy").at(best->first), 1e-5);

  // The served model itself says the same of the validation file.
  const TextFigures served = figures_of(server, model, validation);
  EXPECT_NEAR(kept["valid_loss"].get<double>(), served.loss, 0.01);
  EXPECT_NEAR(kept["valid_mean_token_accuracy"].get<double>(), served.accuracy, 2.5 / served.tokens)
      << "but for ties within rounding";

  const std::string own = (dir.path() / "store").string();
  const Outcome added =
      run({"packages", "add", (data / "runs" / id / "package").string(), "--name", "support", "--data", own});
  ASSERT_EQ(added.code, 0) << added.err;
  const Json package = Json::parse(run({"packages", "show", "support", "--json", "--data", own}).out)["versions"][0];
  EXPECT_EQ(package["trial"], id);
  EXPECT_EQ(package["data_sha256"], sha256_hex(training) + " " + sha256_hex(validation));
}

std::size_t files_below(const fs::path& directory) {
  std::size_t count = 0;
  std::error_code error;
  for (fs::recursive_directory_iterator at(directory, error), end; !error && at != end; at.increment(error))
    count += at->is_regular_file(error) && at->path().filename() != "lock" ? 1 : 0;
  return count;
}

TEST(ServeJobs, AnUploadThatStopsHalfWayLeavesNothing) {
  const TemporaryDirectory dir{place()};
  const fs::path data = dir.path() / "data";
  const std::vector<std::string> arguments{"--model",          model_file(), "--threads",  "1",
                                           "--no-request-log", "--data",     data.string()};
  const std::string half =
      "POST /v1/files HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=B\r\n"
      "Content-Length: 10000000\r\n\r\n--B\r\nContent-Disposition: form-data; name=\"purpose\"\r\n\r\nbatch\r\n"
      "--B\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a\"\r\n\r\n" +
      std::string(2'000'000, 'x');
  const auto staged = [&] { return files_below(data / "sessions"); };
  {
    Served server(arguments);
    for (const bool reset : {false, true}) {
      auto client = server.client();
      ASSERT_TRUE(client.send(half));
      ASSERT_TRUE(asked_until([&] { return staged() == 1; })) << "it is being written";
      if (reset)
        client.abort();
      else
        client.close();
      EXPECT_TRUE(asked_until([&] { return staged() == 0; }));
      EXPECT_EQ(files_below(data / "files"), 0U);
      EXPECT_TRUE(server.ask("GET", "/v1/files")["data"].empty());
    }
    auto client = server.client();
    ASSERT_TRUE(client.send(half));
    ASSERT_TRUE(asked_until([&] { return staged() == 1; }));
    server.signal(SIGKILL);
    server.wait();
    EXPECT_EQ(staged(), 1U);
  }
  Served again(arguments);
  EXPECT_EQ(staged(), 0U) << "what a killed server was writing is gone";
  EXPECT_EQ(files_below(data / "files"), 0U);
  EXPECT_TRUE(again.ask("GET", "/v1/files")["data"].empty());
}

}  // namespace
}  // namespace tailor::test
