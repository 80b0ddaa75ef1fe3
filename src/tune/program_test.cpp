// tailor-tune as a process: killed and resumed, interrupted, short of memory, bad arguments.

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "core/json.h"
#include "core/safetensors.h"
#include "tune/encoder_test_model.h"

namespace tailor::tune {
namespace {

std::string program() {
  const char* build = std::getenv("TAILOR_BUILD_DIR");
  return std::string(build == nullptr ? "." : build) + "/bin/tailor-tune";
}

struct Ended {
  int exit_code = -1;  // -1: a signal ended it
  int signal = 0;
  Json last_event;
  std::vector<std::string> warnings;
};

/// Starts the program with a pipe of one page, so that it cannot run far ahead of what we have read; `on_step` gets the
/// number of each step event and returns a signal to send, or 0.
struct Limits {
  std::uint64_t memory = 0, file = 0;  // bytes; 0: none
};
Ended run(const std::filesystem::path& job, const std::function<int(int)>& on_step = nullptr, Limits limits = {}) {
  int ends[2];
  EXPECT_EQ(pipe(ends), 0);
  fcntl(ends[0], F_SETPIPE_SZ, 4096);
  const pid_t child = fork();
  if (child == 0) {
    dup2(ends[1], STDOUT_FILENO);
    close(ends[0]);
    close(ends[1]);
    if (limits.memory > 0) {
      const rlimit limit{limits.memory, limits.memory};
      setrlimit(RLIMIT_DATA, &limit);
    }
    if (limits.file > 0) {  // what is written beyond it fails as on a full disk
      signal(SIGXFSZ, SIG_IGN);
      const rlimit limit{limits.file, limits.file};
      setrlimit(RLIMIT_FSIZE, &limit);
    }
    execl(program().c_str(), program().c_str(), job.c_str(), nullptr);
    _exit(127);
  }
  close(ends[1]);
  Ended ended;
  std::string line;
  char c = 0;
  while (read(ends[0], &c, 1) == 1) {
    if (c != '\n') {
      line += c;
      continue;
    }
    ended.last_event = parse_json(line, "event").value();
    if (ended.last_event.at("event") == "warning") ended.warnings.push_back(ended.last_event.at("message"));
    line.clear();
    if (on_step && ended.last_event.at("event") == "step") {
      if (const int signal = on_step(ended.last_event.at("step").get<int>()); signal != 0) kill(child, signal);
    }
  }
  close(ends[0]);
  int status = 0;
  waitpid(child, &status, 0);
  if (WIFEXITED(status)) ended.exit_code = WEXITSTATUS(status);
  if (WIFSIGNALED(status)) ended.signal = WTERMSIG(status);
  return ended;
}

class ProgramTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_EQ(access(program().c_str(), X_OK), 0) << program() << " is not built (TAILOR_BUILD_DIR)";
  }

  Json job(const std::string& out) {
    testing::tiny_job(dir_.path(), testing::tiny_rows(10));
    return {
        {"format", "tailor-tune-job"},
        {"version", 1},
        {"method", "full"},
        {"base", dir_.path().string()},
        {"tokens", "tokens.safetensors"},
        {"out", out},
        {"seed", 3},
        {"threads", 2},
        {"checkpoint_every_steps", 5},
        {"checkpoint_every_seconds", 0},
        {"evaluate_every_steps", 20},
        {"resume", true},
        {"settings",
         {{"learning_rate", 1e-3}, {"batch_size", 6}, {"max_steps", 150}, {"dropout", 0.1}, {"hidden_dropout", 0.1}}}};
  }
  std::filesystem::path write(const Json& value) {
    const auto file = dir_.path() / "job.json";
    write_json_atomic(file, value).value();
    return file;
  }

  TemporaryDirectory dir_;
};

TEST_F(ProgramTest, KilledAndResumedGivesTheSameCurve) {
  ASSERT_EQ(run(write(job("whole"))).exit_code, 0);
  const auto file = write(job("killed"));
  for (const int at : {8, 57}) {
    const Ended killed = run(file, [at](int step) { return step == at ? SIGKILL : 0; });
    EXPECT_EQ(killed.signal, SIGKILL);
  }
  const Ended resumed = run(file);
  ASSERT_EQ(resumed.exit_code, 0) << resumed.last_event.dump();
  EXPECT_EQ(resumed.last_event.at("event"), "done");
  const Json expected = read_json(dir_.path() / "whole" / "result.json").value();
  const Json result = read_json(dir_.path() / "killed" / "result.json").value();
  EXPECT_GE(result.at("resumed_from_step").get<int>(), 55);
  for (const char* key : {"losses", "evaluations", "best"}) EXPECT_EQ(result.at(key), expected.at(key)) << key;
  for (const Json& run_result : {expected, result}) {  // what a run needs is known when it begins
    const double peak = run_result.at("peak_memory_bytes"), said = run_result.at("estimates").at("peak_memory_bytes");
    EXPECT_GE(said, peak);
    EXPECT_LE(said, 1.12 * peak);
    EXPECT_GT(run_result.at("estimates").at("training_seconds"), 0);
  }
  EXPECT_EQ(read_file(dir_.path() / "killed" / "weights.safetensors").value(),
            read_file(dir_.path() / "whole" / "weights.safetensors").value());
}

TEST_F(ProgramTest, InterruptedExitsWith130AndCanGoOn) {
  for (const int signal : {SIGTERM, SIGINT}) {
    const auto file = write(job("interrupted-" + std::to_string(signal)));
    const Ended ended = run(file, [signal](int step) { return step == 8 ? signal : 0; });
    EXPECT_EQ(ended.exit_code, 130);
    EXPECT_EQ(ended.last_event.at("code"), "cancelled");
    EXPECT_EQ(run(file).exit_code, 0);
  }
}

TEST_F(ProgramTest, OutOfMemoryIsOneClearErrorEvent) {
  // One pass of 300,000 tokens needs gigabytes; the limit leaves room for the libraries.
  Json value = job("memory");
  TokenFile rows = testing::tiny_rows(10);
  std::vector<std::int32_t> ids(40, 5);
  for (int i = 0; i < 7500; ++i) rows.add_row(ids, i % 5, TokenPart::kTrain, 1000 + i);
  write_token_file(dir_.path() / "tokens.safetensors", rows).value();
  value["settings"]["batch_size"] = 7500;
  value["settings"]["micro_batch_tokens"] = 1000000;
  const Limits little{.memory = std::uint64_t{900} << 20};
  const Ended ended = run(write(value), nullptr, little);
  EXPECT_EQ(ended.exit_code, 4);
  ASSERT_TRUE(ended.last_event.is_object());
  EXPECT_EQ(ended.last_event.at("event"), "error");
  EXPECT_EQ(ended.last_event.at("code"), "out_of_memory");
  EXPECT_NE(ended.last_event.at("message").get<std::string>().find("7500 rows"), std::string::npos)
      << ended.last_event.dump();
  // It says how many tokens fit, and so many do.
  const std::string hint = ended.last_event.at("hint"), words = "micro_batch_tokens to ";
  const auto at = hint.find(words);
  ASSERT_NE(at, std::string::npos) << hint;
  value["settings"]["micro_batch_tokens"] = std::stol(hint.substr(at + words.size()));
  value["settings"]["max_steps"] = 1;
  value["resume"] = false;
  const Ended fits = run(write(value), nullptr, little);
  EXPECT_EQ(fits.exit_code, 0) << fits.last_event.dump();
}

TEST_F(ProgramTest, AFullDiskKeepsTheCheckpointAndTheRunGoesOn) {
  ASSERT_EQ(run(write(job("whole"))).exit_code, 0);
  Json value = job("full");
  value["pause_after_steps"] = 20;
  ASSERT_EQ(run(write(value)).exit_code, 0);
  const auto checkpoint = dir_.path() / "full" / "checkpoint" / "state.safetensors";
  const std::string before = read_file(checkpoint).value();
  value["pause_after_steps"] = 0;
  // What was trained has room, with AdamW's moments it has not.
  const auto room = std::filesystem::file_size(dir_.path() / "whole" / "weights.safetensors") + 4096;
  const Ended failed = run(write(value), nullptr, {.file = room});
  EXPECT_EQ(failed.exit_code, 4);
  EXPECT_EQ(failed.last_event.at("code"), "io");
  EXPECT_NE(failed.last_event.at("message").get<std::string>().find("state.safetensors"), std::string::npos);
  EXPECT_EQ(read_file(checkpoint).value(), before);
  ASSERT_EQ(run(write(value)).exit_code, 0);
  const Json expected = read_json(dir_.path() / "whole" / "result.json").value();
  const Json result = read_json(dir_.path() / "full" / "result.json").value();
  EXPECT_EQ(result.at("resumed_from_step"), 20);
  EXPECT_EQ(result.at("losses"), expected.at("losses"));
}

TEST_F(ProgramTest, ABadRowIsNamedCountedAndLeftOut) {
  TokenFile rows = testing::tiny_rows(10);
  rows.tokens[static_cast<std::size_t>(rows.offsets[12])] = 95;  // a word whose vector is no number
  Json value = job("bad-row");
  value["method"] = "lora";
  write_token_file(dir_.path() / "tokens.safetensors", rows).value();
  const auto model = SafetensorsFile::open(dir_.path() / "model.safetensors").value();
  std::vector<SafeTensor> tensors = model.tensors();
  std::string words(tensors[0].bytes);
  const float nan = std::numeric_limits<float>::quiet_NaN();
  std::memcpy(words.data() + 95 * 32 * sizeof(float), &nan, sizeof nan);
  tensors[0].bytes = words;
  write_safetensors(dir_.path() / "changed.safetensors", tensors).value();
  std::filesystem::rename(dir_.path() / "changed.safetensors", dir_.path() / "model.safetensors");
  const Ended ended = run(write(value));
  ASSERT_EQ(ended.exit_code, 0) << ended.last_event.dump();
  ASSERT_EQ(ended.warnings.size(), 1u);
  EXPECT_NE(ended.warnings[0].find("112"), std::string::npos) << ended.warnings[0];
  const Json result = read_json(dir_.path() / "bad-row" / "result.json").value();
  EXPECT_EQ(result.at("excluded_rows"), Json::array({112}));
  for (const Json& loss : result.at("losses")) EXPECT_TRUE(loss.is_number());
}

TEST_F(ProgramTest, ARateThatExplodesEndsWithAReason) {
  Json value = job("wild");
  value["settings"]["learning_rate"] = 1000;
  value["settings"]["schedule"] = "constant";
  value["settings"]["max_steps"] = 400;
  value["evaluate_every_steps"] = 0;
  value["evaluate_every_epochs"] = 0;
  const Ended ended = run(write(value));
  EXPECT_EQ(ended.exit_code, 2);
  EXPECT_NE(ended.last_event.at("message").get<std::string>().find("diverged"), std::string::npos)
      << ended.last_event.dump();
  EXPECT_NE(ended.last_event.at("hint").get<std::string>().find("learning_rate"), std::string::npos);
  EXPECT_EQ(ended.warnings.size(), 4u) << "it went back four times";
}

TEST_F(ProgramTest, CheckpointsOfAnotherModelOrVersionAreRefused) {
  Json value = job("other");
  value["pause_after_steps"] = 5;
  ASSERT_EQ(run(write(value)).exit_code, 0);
  const auto model = dir_.path() / "model.safetensors";
  const std::string bytes = read_file(model).value();
  std::string other = bytes;
  other[other.size() - 5] = static_cast<char>(other[other.size() - 5] ^ 1);
  write_file_atomic(model, other).value();
  Ended ended = run(write(value));
  EXPECT_EQ(ended.exit_code, 2);
  EXPECT_NE(ended.last_event.at("message").get<std::string>().find("belongs to another job"), std::string::npos);
  write_file_atomic(model, bytes).value();
  const auto checkpoint = dir_.path() / "other" / "checkpoint" / "state.safetensors";
  std::string state = read_file(checkpoint).value();
  const auto at = state.find("\"version\":\"1\"");
  ASSERT_NE(at, std::string::npos);
  state[at + 11] = '7';
  write_file_atomic(checkpoint, state).value();
  ended = run(write(value));
  EXPECT_EQ(ended.exit_code, 2) << ended.last_event.dump();
  EXPECT_NE(ended.last_event.at("message").get<std::string>().find("version"), std::string::npos);
}

TEST_F(ProgramTest, DamagedModelsAreNamed) {
  const auto refusal = [&](const std::function<void(std::vector<SafeTensor>&)>& change,
                           const std::string& config = "") {
    const Json value = job("damaged");
    {
      const auto model = SafetensorsFile::open(dir_.path() / "model.safetensors").value();
      std::vector<SafeTensor> tensors = model.tensors();
      change(tensors);
      write_safetensors(dir_.path() / "changed.safetensors", tensors).value();
    }
    std::filesystem::rename(dir_.path() / "changed.safetensors", dir_.path() / "model.safetensors");
    if (!config.empty()) write_file_atomic(dir_.path() / "config.json", config).value();
    const Ended ended = run(write(value));
    EXPECT_EQ(ended.exit_code, 2) << ended.last_event.dump();
    return ended.last_event.value("message", "") + " (" + ended.last_event.value("hint", "") + ")";
  };
  const auto expect = [](const std::string& seen, const std::string& part) {
    EXPECT_NE(seen.find(part), std::string::npos) << "message: " << seen << "\nexpected: " << part;
  };
  const auto named = [](std::vector<SafeTensor>& tensors, const std::string& name) -> SafeTensor& {
    return *std::find_if(tensors.begin(), tensors.end(), [&](const SafeTensor& t) { return t.name == name; });
  };
  const std::string query = "encoder.layer.1.attention.self.query.weight";
  expect(refusal([&](auto& tensors) { std::erase_if(tensors, [&](const SafeTensor& t) { return t.name == query; }); }),
         "tensor 'blk.1.attn_q.weight' is missing");
  expect(refusal([&](auto& tensors) {
           named(tensors, query).shape = {16, 64};
         }),
         "'blk.1.attn_q.weight' has shape [16, 64], expected [32, 32]");
  expect(refusal([&](auto& tensors) {
           SafeTensor twice = named(tensors, query);
           twice.name = "bert." + query;
           tensors.push_back(twice);
         }),
         "is there twice");
  expect(refusal([](auto&) {}, R"({"model_type": "mamba", "hidden_size": 32})"), "mamba");
}

TEST_F(ProgramTest, BadJobsExitWith2) {
  EXPECT_EQ(run(dir_.path() / "absent.json").exit_code, 2);
  Json value = job("bad");
  value["settings"]["rate"] = 1;
  const Ended ended = run(write(value));
  EXPECT_EQ(ended.exit_code, 2);
  EXPECT_EQ(ended.last_event.at("code"), "invalid_argument");
}

}  // namespace
}  // namespace tailor::tune
