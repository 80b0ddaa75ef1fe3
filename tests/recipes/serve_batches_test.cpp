// Batches of `tailor serve` where something fails: killed servers, full disks.

#include <fmt/format.h>

#include <map>
#include <sstream>

#include "core/rng.h"
#include "tests/recipes/chaos.h"

namespace tailor::test {
namespace {

namespace fs = std::filesystem;

/// Each line asks for a number of tokens of its own, so that an answer shows whose it is.
int tokens_of(int line) {
  return 1 + line * 7 % 40;
}

std::string completion_lines(int count) {
  std::string out;
  for (int i = 0; i < count; ++i) {
    const Json body{{"model", "tiny-llama"}, {"prompt", "x"}, {"max_tokens", tokens_of(i)}, {"ignore_eos", true}};
    out +=
        dump_json({{"custom_id", std::to_string(i)}, {"method", "POST"}, {"url", "/v1/completions"}, {"body", body}}) +
        "\n";
  }
  return out;
}

std::string create_batch(const Served& server, const std::string& file) {
  return server.ask("POST", "/v1/batches",
                    {{"input_file_id", file}, {"endpoint", "/v1/completions"}, {"completion_window", "24h"}})["id"];
}

Json batch_of(const Served& server, const std::string& id) {
  return server.ask("GET", "/v1/batches/" + id);
}

int answered(const Json& batch) {
  return batch["request_counts"]["completed"].get<int>();
}

std::vector<std::string> arguments(const fs::path& data) {
  return {"--model", model_file(), "--threads", "2", "--no-request-log", "--data", data.string()};
}

/// The lines that have come to their end.
std::string whole_lines(const std::string& text) {
  return text.substr(0, text.rfind('\n') + 1);
}

std::string spool_of(const fs::path& data, const std::string& batch) {
  const auto text = read_file(data / "runs" / batch / "output.jsonl");
  return text ? whole_lines(*text) : std::string();
}

/// How many lines there are; each is the answer to its own request, and none comes twice.
int check_answers(const std::string& text) {
  std::map<std::string, int> seen;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    const Json json = Json::parse(line, nullptr, false);
    if (!json.is_object()) {
      ADD_FAILURE() << "half a line: " << line;
      continue;
    }
    const std::string id = json["custom_id"];
    EXPECT_EQ(++seen[id], 1) << "answered twice: " << id;
    EXPECT_EQ(json["response"]["status_code"], 200) << line;
    EXPECT_EQ(json["response"]["body"]["usage"]["completion_tokens"], tokens_of(std::stoi(id))) << id;
  }
  return static_cast<int>(seen.size());
}

std::string output_of(const Served& server, const Json& batch) {
  const std::string path = "/v1/files/" + batch["output_file_id"].get<std::string>() + "/content";
  return server.client().ask(Served::request("GET", path, "")).body;
}

/// It ends, and has exactly one answer to each request.
void expect_completed(const Served& server, const std::string& batch, int count) {
  Json now;
  ASSERT_TRUE(asked_until([&] {
    now = batch_of(server, batch);
    return now["status"] == "completed" || now["status"] == "failed";
  })) << now;
  ASSERT_EQ(now["status"], "completed") << now;
  EXPECT_EQ(now["request_counts"], Json({{"total", count}, {"completed", count}, {"failed", 0}}));
  EXPECT_TRUE(now["error_file_id"].is_null());
  EXPECT_EQ(check_answers(output_of(server, now)), count);
}

int output_files(const Served& server, const std::string& batch) {
  int count = 0;
  const Json files = server.ask("GET", "/v1/files?purpose=batch_output&limit=10000");
  for (const Json& file : files["data"]) count += file["filename"] == batch + "_output.jsonl" ? 1 : 0;
  return count;
}

/// The slow suite: 4,500 lines, 30 kills.
TEST(ServeBatches, KilledAtAnyMomentABatchAnswersEachRequestOnce) {
  const TemporaryDirectory dir{place()};
  const fs::path data = dir.path() / "data";
  const int rounds = kills(), count = 150 * std::max(2, rounds);
  Rng rng(7);
  std::string batch, before;
  int counted = 0, interrupted = 0;
  for (int round = 0; round < rounds; ++round) {
    SCOPED_TRACE(fmt::format("round {}", round));
    Served server(arguments(data));
    ASSERT_FALSE(server.line().empty());
    if (batch.empty()) batch = create_batch(server, server.upload(completion_lines(count), "batch"));
    // Every third is killed at whatever moment, the others once the batch has gone on by so many answers.
    const bool any_moment = round % 3 == 2;
    const int more = 1 + static_cast<int>(rng.below(static_cast<std::uint64_t>(count / rounds)));
    const auto until = std::chrono::steady_clock::now() + std::chrono::microseconds(rng.below(50'000));
    Json now;
    ASSERT_TRUE(asked_until([&] {
      now = batch_of(server, batch);
      if (any_moment) return std::chrono::steady_clock::now() >= until;
      return now["status"] == "completed" || answered(now) >= counted + more;
    })) << "it does not go on: "
        << now;
    ASSERT_NE(now["status"], "failed") << now;
    EXPECT_GE(answered(now), counted) << "what was counted stays";
    counted = answered(now);
    interrupted += now["status"] == "in_progress" ? 1 : 0;
    server.signal(SIGKILL);
    ASSERT_EQ(server.wait(), -SIGKILL) << "it ended by itself";
    if (!fs::exists(data / "runs" / batch)) continue;  // it has ended
    const std::string after = spool_of(data, batch);
    EXPECT_EQ(after.rfind(before, 0), 0U) << "what was answered stays";
    EXPECT_GE(check_answers(after), counted) << "what was counted is there";
    before = after;
    if (::testing::Test::HasFailure()) return;
  }
  EXPECT_GE(interrupted, rounds / 2);
  const Served server(arguments(data));
  expect_completed(server, batch, count);
  EXPECT_EQ(output_files(server, batch), 1);
  EXPECT_FALSE(fs::exists(data / "runs" / batch));
}

/// A few requests are answered in milliseconds: kills meet their check, their answers and how they are put in place.
TEST(ServeBatches, KilledFromItsBeginningToItsEndABatchHasOneOutputFile) {
  constexpr int kCount = 4;
  const TemporaryDirectory dir{place()};
  const fs::path data = dir.path() / "data";
  Rng rng(11);
  std::string file;
  std::vector<std::string> batches;
  for (int round = 0; round < kills(); ++round) {
    SCOPED_TRACE(fmt::format("round {}", round));
    Served server(arguments(data));
    ASSERT_FALSE(server.line().empty());
    if (file.empty()) file = server.upload(completion_lines(kCount), "batch");
    if (!batches.empty()) expect_completed(server, batches.back(), kCount);
    batches.push_back(create_batch(server, file));
    const auto until = std::chrono::steady_clock::now() + std::chrono::microseconds(rng.below(40'000));
    while (std::chrono::steady_clock::now() < until) {  // the server goes on meanwhile
    }
    server.signal(SIGKILL);
    ASSERT_EQ(server.wait(), -SIGKILL) << "it ended by itself";
    if (::testing::Test::HasFailure()) return;
  }
  const Served server(arguments(data));
  for (const std::string& batch : batches) {
    expect_completed(server, batch, kCount);
    EXPECT_EQ(output_files(server, batch), 1) << batch;
    EXPECT_FALSE(fs::exists(data / "runs" / batch));
  }
  EXPECT_EQ(server.ask("GET", "/v1/batches?limit=100")["data"].size(), batches.size());
}

TEST(ServeBatches, AtAFullDiskABatchWaitsAlsoForANewServer) {
  constexpr int kCount = 600;
  SmallDisk disk("16m");
  if (!disk.mounted()) GTEST_SKIP() << "a small disk needs the right to mount one (root)";
  const fs::path data = disk.path() / "data";
  std::string batch, before;
  const auto fill = [&](const Served& server) {
    const int from = answered(batch_of(server, batch));
    ASSERT_TRUE(asked_until([&] { return answered(batch_of(server, batch)) > from; })) << batch_of(server, batch);
    disk.fill(0);
    ASSERT_TRUE(asked_until([&] {
      return contains(server.client().ask(Served::request("GET", "/metrics", "")).body, "tailor_batches_stalled 1\n");
    }));
    EXPECT_EQ(batch_of(server, batch)["status"], "in_progress");
    const std::string spool = spool_of(data, batch);
    EXPECT_EQ(spool.rfind(before, 0), 0U) << "what was answered stays";
    EXPECT_LT(check_answers(spool), kCount);
    before = spool;
    EXPECT_EQ(server.ask("POST", "/v1/completions", {{"prompt", "x"}, {"max_tokens", 1}})["object"], "text_completion")
        << "the server goes on";
  };
  {
    Served server(arguments(data));
    batch = create_batch(server, server.upload(completion_lines(kCount), "batch"));
    ASSERT_NO_FATAL_FAILURE(fill(server));
    disk.empty();
    ASSERT_NO_FATAL_FAILURE(fill(server)) << "it went on";
    server.signal(SIGKILL);
    server.wait();
    disk.empty();
  }
  const Served server(arguments(data));
  expect_completed(server, batch, kCount);
  EXPECT_EQ(output_files(server, batch), 1);
}

}  // namespace
}  // namespace tailor::test
