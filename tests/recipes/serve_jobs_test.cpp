// Jobs and uploads of `tailor serve` where something fails: killed servers, full disks, clients that go.

#include <fmt/format.h>

#include <map>

#include "core/rng.h"
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
    // Every third at whatever moment, the others once it trains.
    const auto until = std::chrono::steady_clock::now() + std::chrono::milliseconds(rng.below(2500));
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
