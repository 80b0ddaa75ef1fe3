/// `tailor config`, and `tailor tune` with settings from a file: what the run directory then holds.

#include <algorithm>

#include "core/json.h"
#include "tests/recipes/cli.h"

namespace tailor::test {
namespace {

namespace fs = std::filesystem;

/// A Python that has the package; empty where there is none (`make peers`).
std::string python_with(const std::string& package) {
  const char* cache = std::getenv("TAILOR_CACHE");
  const char* home = std::getenv("HOME");
  const fs::path root = cache != nullptr ? fs::path(cache) : fs::path(home != nullptr ? home : "") / ".cache/tailor";
  const fs::path python = root / "peers/bin/python";
  if (!fs::exists(python)) return {};
  const TemporaryDirectory dir;
  const CancelToken never;
  const auto r = run_process(
      {.command = {python.string(), "-c", "import " + package}, .stderr_file = dir.path() / "e"},
      [](std::string_view) {}, never);
  return r && r->exit_code == 0 ? python.string() : std::string();
}

/// A committed script; what it says, with its exit code.
Outcome script(const std::string& python, const std::string& name, std::vector<std::string> arguments) {
  const char* source = std::getenv("TAILOR_SOURCE_DIR");
  arguments.insert(arguments.begin(), {python, "-B", std::string(source) + "/tests/golden/" + name});
  const TemporaryDirectory dir;
  const CancelToken never;
  Outcome out;
  const auto r = run_process(
      {.command = arguments, .stderr_file = dir.path() / "e"},
      [&](std::string_view line) { out.out += std::string(line) + "\n"; }, never);
  out.code = r ? r->exit_code : -1;
  out.err = read_file(dir.path() / "e").value();
  return out;
}

class Config : public ::testing::Test {
 protected:
  std::string file(const std::string& name, const std::string& content) {
    const auto path = dir_.path() / name;
    write_file_atomic(path, content).value();
    return path.string();
  }
  TemporaryDirectory dir_;
};

TEST_F(Config, ValidateSaysEverythingAtOnce) {
  const std::string good = file("good.yaml", "adapter: qlora\nload_in_4bit: true\nnum_epochs: 2\nbf16: auto\n");
  const Outcome fine = run({"config", "validate", good});
  EXPECT_EQ(fine.code, 0) << fine.err;
  EXPECT_TRUE(contains(fine.out, "method  \"qlora\"")) << fine.out;
  EXPECT_TRUE(contains(fine.out, good + ":3, by num_epochs (Axolotl)")) << fine.out;
  EXPECT_TRUE(contains(fine.out, "note: " + good + ":4: bf16 changes nothing")) << fine.out;
  const std::string bad = file("bad.yaml", "epocs: 2\nlearning_rate: fast\nmethod: lorra\n");
  const Outcome wrong = run({"config", "validate", bad});
  EXPECT_EQ(wrong.code, 2);
  EXPECT_TRUE(contains(wrong.err, bad + ":1: there is no setting \"epocs\"\n  did you mean epochs?")) << wrong.err;
  EXPECT_TRUE(contains(wrong.err, bad + ":2: learning_rate should be a number")) << wrong.err;
  EXPECT_TRUE(contains(wrong.err, "did you mean lora?")) << wrong.err;
  EXPECT_TRUE(contains(wrong.err, "3 error(s)")) << wrong.err;
  const Outcome json = run({"config", "validate", bad, "--json"});
  EXPECT_EQ(json.code, 2);
  EXPECT_EQ(parse_json(json.out, "validate").value().at("errors").size(), 3u);
  EXPECT_EQ(run({"config", "validate", (dir_.path() / "none.yaml").string()}).code, 2);
  // `tune` says the same before it reads any data.
  const Outcome tune = run({"tune", "--config", bad, "--set", "zzz=1", "--warmup-ratio", "2"});
  EXPECT_EQ(tune.code, 2);
  for (const char* part : {"epocs", "learning_rate", "lorra", "--set: there is no setting \"zzz\"", "--warmup-ratio"})
    EXPECT_TRUE(contains(tune.err, part)) << tune.err;
}

TEST_F(Config, TheSchemaAgreesWithTheReader) {
  const Outcome schema = run({"config", "schema"});
  ASSERT_EQ(schema.code, 0);
  EXPECT_EQ(parse_json(schema.out, "schema").value().at("additionalProperties"), false);
  EXPECT_TRUE(contains(run({"config", "keys"}).out, "| `epochs` | number (0, 1000000] |"));
  EXPECT_TRUE(contains(run({"completion", "bash"}).out, "config) words="));
  const std::string python = python_with("jsonschema");
  if (python.empty()) return;  // the unit tests look at the schema's structure
  const char* good[] = {"epochs: 2",
                        "learning_rate: 2e-4",
                        "lora: {r: 8, alpha: 1.5}",
                        "adapter: qlora",
                        "bf16: auto",
                        "method: adapter-pfeiffer\nadapter: {size: 8}",
                        "dtype: bf16",
                        "dtype: bfloat16",
                        "bf16: true",
                        "gradient_checkpointing: true",
                        "modules_to_save: []",
                        "wandb_project: x",
                        "datasets: [{path: a.jsonl, type: alpaca}]",
                        "target_modules: [q, v]",
                        "text: a\nlabel: b",
                        "num_train_epochs:",
                        "{\"r\": 8, \"bias\": \"none\"}"};
  const char* bad[] = {"epocs: 2",
                       "learning_rate: fast",
                       "learning_rate: 0",
                       "lora: {rank: 8}",
                       "adapter: {width: 8}",
                       "method: lorra",
                       "schedule: square",
                       "dtype: int8",
                       "device: tpu",
                       "layers_to_transform: [1]",
                       "batch_size: 0",
                       "seed: -1",
                       "stage: dpo",
                       "datasets: []",
                       "num_epochs: [1]",
                       "r: 2.5",
                       "adapter: longlora",
                       "- a"};
  std::vector<std::string> accepted{program().string()}, refused{program().string(), "--refused"};
  for (const char* text : good)
    accepted.push_back(file("good" + std::to_string(accepted.size()) + ".yaml", std::string(text) + "\n"));
  accepted.push_back(std::string(std::getenv("TAILOR_SOURCE_DIR")) + "/examples/tune.yaml");
  for (const char* text : bad)
    refused.push_back(file("bad" + std::to_string(refused.size()) + ".yaml", std::string(text) + "\n"));
  for (const auto& files : {accepted, refused}) {
    const Outcome r = script(python, "config_schema_check.py", files);
    EXPECT_EQ(r.code, 0) << r.out << r.err;
  }
}

class TuneByFile : public Config {
 protected:
  void SetUp() override {
    if (!fs::exists(program().parent_path() / "tailor-tune")) GTEST_SKIP() << "this build has no tailor-tune";
    csv_ = file("data.csv", small_csv(16));
    yaml_ = file("tune.yaml", "data: " + csv_ +
                                  "\ntext: message\nlabel: intent\nfinetuning_type: lora\n"
                                  "base_model: all-minilm-l6-v2\nlora_r: 4\nmax_steps: 9\nlr_scheduler_type: cosine\n"
                                  "per_device_train_batch_size: 8\neval_steps: 3\n");
  }
  /// The steps of an event in train_log.jsonl.
  static std::vector<int> logged(const fs::path& run, const std::string& kind) {
    std::vector<int> steps;
    for (const Json& event : read_jsonl(run / "train_log.jsonl").value()) {
      if (event.at("event") == kind) steps.push_back(event.at("step"));
    }
    return steps;
  }
  static void tensorboard_agrees(const fs::path& run) {
    const std::string python = python_with("tensorboard");
    if (python.empty()) return;  // its bytes are tested against golden ones
    const Outcome r = script(python, "tensorboard_reads_run.py", {run.string()});
    EXPECT_EQ(r.code, 0) << r.out << r.err;
  }
  std::string csv_, yaml_;
};

TEST_F(TuneByFile, FlagsWinAndTheRunKeepsItsLog) {
  const fs::path out = dir_.path() / "run";
  const Outcome r = run({"tune", "--config", yaml_, "--max-steps", "6", "--set", "lora_alpha=8", "--dropout", "0.2",
                         "--quiet", "--out", out.string()});
  ASSERT_EQ(r.code, 0) << r.err;
  const Json result = read_json(out / "result.json").value();
  const Json& settings = result.at("settings");
  EXPECT_EQ(settings.at("lora").at("r"), 4);
  EXPECT_EQ(settings.at("lora").at("alpha"), 8);
  EXPECT_EQ(settings.at("dropout"), 0.2);
  EXPECT_EQ(settings.at("schedule"), "cosine");
  EXPECT_EQ(settings.at("batch_size"), 8);
  EXPECT_EQ(result.at("steps"), 6);
  EXPECT_EQ(logged(out, "step"), (std::vector<int>{1, 2, 3, 4, 5, 6}));
  for (const Json& name : result.at("files")) EXPECT_TRUE(fs::exists(out / name.get<std::string>())) << name;
  tensorboard_agrees(out);
  const std::string report = read_file(out / "report.html").value();
  for (const char* part :
       {"How the training went", "Loss over the training", "Learning rate", "test rows right", "lora"})
    EXPECT_TRUE(contains(report, part)) << part;
  EXPECT_FALSE(contains(report, "://"));
  EXPECT_TRUE(contains(read_file(out / "report.md").value(), "were kept"));
}

TEST_F(TuneByFile, AResumedRunKeepsItsConfigurationAndWritesNoStepTwice) {
  const fs::path out = dir_.path() / "run";
  CancelToken stop;
  const auto ended = run_process(
                         {.command = {program().string(), "tune", "--config", yaml_, "--json", "--set",
                                      "checkpoint_every_steps=1", "--out", out.string()},
                          .stderr_file = dir_.path() / "log"},
                         [&](std::string_view line) {
                           const Json event = parse_json(std::string(line), "event").value();
                           if (event.value("event", "") == "step" && event.value("step", 0) == 4) stop.cancel();
                         },
                         stop)
                         .value();
  ASSERT_EQ(ended.exit_code, 130) << read_file(dir_.path() / "log").value();
  const auto refused = [&](std::vector<std::string> more, std::string_view part) {
    std::vector<std::string> arguments{"tune", "--resume", out.string(), "--quiet"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    const Outcome r = run(arguments);
    EXPECT_EQ(r.code, 2) << r.err;
    EXPECT_TRUE(contains(r.err, part)) << r.err;
  };
  refused({"--epochs", "9"}, "the run began with no epochs of its own, 9.0 is asked for now");
  refused({"--config", yaml_, "--lora-r", "8"}, "the run began with lora.r 4, 8 is asked for now");
  refused({"--method", "dora"}, "the run began with method \"lora\"");
  const Outcome resumed =
      run({"tune", "--resume", out.string(), "--config", yaml_, "--quiet", "--set", "save_steps=5"});
  ASSERT_EQ(resumed.code, 0) << resumed.err;
  EXPECT_EQ(logged(out, "step"), (std::vector<int>{1, 2, 3, 4, 5, 6, 7, 8, 9}));
  const std::vector<int> evaluations = logged(out, "evaluation");
  EXPECT_TRUE(std::is_sorted(evaluations.begin(), evaluations.end()));
  EXPECT_EQ(std::adjacent_find(evaluations.begin(), evaluations.end()), evaluations.end());
  tensorboard_agrees(out);
}

}  // namespace
}  // namespace tailor::test
