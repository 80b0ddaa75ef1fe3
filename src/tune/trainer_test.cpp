// The loop on the tiny encoder: resuming, keeping the best, bad rows, divergence, a full disk.

#include "tune/trainer.h"

#include <ATen/Context.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <cmath>
#include <csignal>
#include <cstring>
#include <limits>
#include <map>
#include <numeric>

#include <fmt/format.h>

#include "core/head_file.h"
#include "core/json.h"
#include "core/safetensors.h"
#include "tune/checkpoint.h"
#include "tune/encoder_test_model.h"
#include "tune/run_job.h"

namespace tailor::tune {
namespace {

struct Trained {
  Result<Json> result;
  std::vector<Json> events;
  int count(const std::string& kind) const {
    int n = 0;
    for (const Json& event : events) n += event.at("event") == kind ? 1 : 0;
    return n;
  }
};

Trained train(const Job& job, int cancel_after_steps = -1) {
  CancelToken cancel;
  std::vector<Json> events;
  int steps = 0;
  const auto sink = [&](const Json& event) {
    events.push_back(event);
    if (event.at("event") == "step" && ++steps == cancel_after_steps) cancel.cancel();
  };
  auto result = run_job(job, sink, cancel, std::chrono::steady_clock::now());
  return {std::move(result), std::move(events)};
}

class TrainerTest : public ::testing::Test {
 protected:
  Job job(const std::string& name, int validation = 10) {
    std::filesystem::create_directories(dir_.path() / name);
    TokenFile rows = testing::tiny_rows(validation, 4);
    if (name.starts_with("distill")) {
      rows.soft_targets.assign(rows.rows() * testing::kLabels, 1.0f / testing::kLabels);
      rows.labels[7] = -1;
    }
    Job job = testing::tiny_job(dir_.path() / name, rows);
    job.settings.dropout = 0.2;  // the masks must be resumed too
    job.settings.hidden_dropout = 0.1;
    job.evaluate_every_steps = 4;
    return job;
  }
  std::string bytes(const std::filesystem::path& file) { return read_file(file).value(); }

  TemporaryDirectory dir_;
};

TEST_F(TrainerTest, ARunThatIsPausedAndResumedIsBitEqualToOneThatIsNot) {
  for (const std::string method : {"full", "lora", "head", "contrastive", "distill", "full-ema"}) {
    const bool averaged = method.ends_with("-ema");
    Job whole = job(method + "-whole");
    whole.method = averaged ? "full" : method;
    whole.settings.ema_decay = averaged ? 0.7 : 0;
    const Trained expected = train(whole);
    ASSERT_TRUE(expected.result) << expected.result.error().message;
    Job parts = job(method + "-parts");
    parts.method = whole.method;
    parts.settings = whole.settings;
    parts.resume = true;
    for (const int pause : {3, 4, 11, 0}) {
      parts.pause_after_steps = pause;
      const Trained run = train(parts);
      ASSERT_TRUE(run.result) << run.result.error().message;
      EXPECT_EQ(run.result->at("stopped"), pause > 0 ? "paused" : "finished");
    }
    const Json resumed = read_json(parts.out / "result.json").value();
    EXPECT_EQ(resumed.at("resumed_from_step"), 11);
    for (const char* key : {"losses", "evaluations", "best", "tokens", "examples"})
      EXPECT_EQ(resumed.at(key), expected.result->at(key)) << method << " " << key;
    for (const char* file :
         {"weights.safetensors", "validation_predictions.safetensors", "test_predictions.safetensors"}) {
      EXPECT_EQ(bytes(parts.out / file), bytes(whole.out / file)) << method << " " << file;
    }
  }
}

TEST_F(TrainerTest, CheckpointingMayChangeWhenARunIsResumed) {
  for (const std::string method : {"full", "lora"}) {
    Job whole = job(method + "-kept");
    whole.method = method;
    whole.settings.lora.dropout = 0.1;
    ASSERT_TRUE(train(whole).result);
    Job parts = job(method + "-sparing");
    parts.method = method;
    parts.settings.lora.dropout = 0.1;
    parts.settings.activation_checkpointing = true;
    parts.pause_after_steps = 9;
    ASSERT_TRUE(train(parts).result);
    parts.resume = true;
    parts.settings.activation_checkpointing = false;
    parts.pause_after_steps = 15;
    ASSERT_TRUE(train(parts).result);
    parts.settings.activation_checkpointing = true;
    parts.pause_after_steps = 0;
    const Trained last = train(parts);
    ASSERT_TRUE(last.result) << last.result.error().message;
    EXPECT_EQ(last.result->at("resumed_from_step"), 15);
    EXPECT_EQ(last.result->at("settings").at("activation_checkpointing"), true);
    EXPECT_EQ(bytes(parts.out / "weights.safetensors"), bytes(whole.out / "weights.safetensors")) << method;
  }
}

TEST_F(TrainerTest, AnotherFormulationGoesOnWithARunWithinRounding) {
  Job whole = job("native");
  whole.settings.ema_decay = 0.7;
  const Trained expected = train(whole);
  ASSERT_TRUE(expected.result);
  Job parts = job("portable");
  parts.settings.ema_decay = 0.7;
  parts.kernels = Kernels::kPortable;
  parts.pause_after_steps = 6;
  ASSERT_TRUE(train(parts).result);
  parts.resume = true;
  parts.kernels = Kernels::kNative;
  parts.pause_after_steps = 12;
  ASSERT_TRUE(train(parts).result);
  parts.kernels = Kernels::kPortable;
  parts.pause_after_steps = 0;
  const Trained last = train(parts);
  ASSERT_TRUE(last.result) << last.result.error().message;
  const auto seen = last.result->at("losses").get<std::vector<double>>();
  const auto wanted = expected.result->at("losses").get<std::vector<double>>();
  ASSERT_EQ(seen.size(), wanted.size());
  for (std::size_t i = 0; i < seen.size(); ++i) EXPECT_NEAR(seen[i], wanted[i], 2e-4) << i;
}

TEST_F(TrainerTest, ADeviceThatIsNotThereIsNamedWithWhatToDo) {
  if (at::globalContext().hasCUDA())
    GTEST_SKIP() << "this machine has a CUDA device, and this build its half of libtorch";
  Job asked = job("cuda");
  asked.device = Device::kCuda;
  const Trained run = train(asked);
  ASSERT_FALSE(run.result);
  EXPECT_EQ(run.result.error().code, ErrorCode::kUnavailable);
  EXPECT_NE(run.result.error().message.find("device cuda"), std::string::npos);
  EXPECT_NE(run.result.error().hint.find("TAILOR_TORCH_CUDA=ON (docs/BUILD.md)"), std::string::npos);
  EXPECT_FALSE(std::filesystem::exists(asked.out / "checkpoint"));
}

TEST_F(TrainerTest, AStudentNeedsALabelOrATeachersAnswerForEveryRow) {
  const auto refusal = [&](TokenFile rows, const std::string& method) {
    Job job = testing::tiny_job(dir_.path(), rows, method);
    const Trained run = train(job);
    return run.result ? std::string() : run.result.error().message;
  };
  TokenFile rows = testing::tiny_rows();
  EXPECT_NE(refusal(rows, "distill").find("it has no soft_targets"), std::string::npos);
  rows.labels[3] = -1;
  EXPECT_NE(refusal(rows, "full").find("training row 103 has no label"), std::string::npos);
  rows.soft_targets.assign(rows.rows() * testing::kLabels, 0);
  EXPECT_NE(refusal(rows, "distill").find("training row 103 has neither a label nor a teacher's answer"),
            std::string::npos);
}

TEST_F(TrainerTest, ACancelledRunKeepsACheckpointAndGoesOn) {
  Job first = job("whole");
  const Trained expected = train(first);
  Job second = job("cancelled");
  const Trained cancelled = train(second, 7);
  ASSERT_FALSE(cancelled.result);
  EXPECT_EQ(cancelled.result.error().code, ErrorCode::kCancelled);
  second.resume = true;
  const Trained resumed = train(second);
  ASSERT_TRUE(resumed.result) << resumed.result.error().message;
  EXPECT_EQ(resumed.result->at("resumed_from_step"), 7);
  EXPECT_EQ(resumed.result->at("losses"), expected.result->at("losses"));
}

TEST_F(TrainerTest, ResumingOnAnotherNumberOfThreadsGivesTheSameCurveWithinRounding) {
  Job whole = job("whole");
  const auto expected = train(whole).result.value().at("losses").get<std::vector<double>>();
  Job parts = job("parts");
  parts.resume = true;
  parts.pause_after_steps = 6;
  parts.threads = 1;
  ASSERT_TRUE(train(parts).result);
  parts.pause_after_steps = 0;
  parts.threads = 2;
  const auto losses = train(parts).result.value().at("losses").get<std::vector<double>>();
  ASSERT_EQ(losses.size(), expected.size());
  for (std::size_t i = 0; i < losses.size(); ++i) EXPECT_NEAR(losses[i], expected[i], 1e-4) << i;
}

// Out of memory says how many tokens fit: the run goes on with those.
TEST_F(TrainerTest, AResumedRunMayCutItsBatchesOtherwise) {
  Job whole = job("whole");
  whole.settings.dropout = whole.settings.hidden_dropout = 0;  // whose masks are drawn for a pass
  const auto expected = train(whole).result.value().at("losses").get<std::vector<double>>();
  for (const std::string method : {"full", "contrastive"}) {
    Job parts = job("parts-" + method);
    parts.settings.dropout = parts.settings.hidden_dropout = 0;
    parts.method = method;
    parts.resume = true;
    parts.pause_after_steps = 6;
    ASSERT_TRUE(train(parts).result);
    parts.pause_after_steps = 0;
    parts.settings.micro_batch_tokens = 20;
    const Trained run = train(parts);
    if (method == "contrastive") {  // compares the texts of a pass
      ASSERT_FALSE(run.result);
      EXPECT_NE(run.result.error().message.find("checkpoint"), std::string::npos) << run.result.error().message;
      continue;
    }
    ASSERT_TRUE(run.result) << run.result.error().message;
    const auto losses = run.result->at("losses").get<std::vector<double>>();
    ASSERT_EQ(losses.size(), expected.size());
    for (std::size_t i = 0; i < losses.size(); ++i) EXPECT_NEAR(losses[i], expected[i], 1e-4) << i;
  }
}

TEST_F(TrainerTest, TheBestValuesAreKeptAndPredictTheReportedMetric) {
  Job best = job("best", 20);
  best.early_stopping_patience = 3;
  best.settings.max_steps = 200;
  const Trained run = train(best);
  ASSERT_TRUE(run.result) << run.result.error().message;
  const Json& result = *run.result;
  EXPECT_EQ(result.at("stopped"), "early");
  double highest = 0;
  for (const Json& e : result.at("evaluations")) highest = std::max(highest, e.at("accuracy").get<double>());
  EXPECT_EQ(result.at("best").at("accuracy").get<double>(), highest);
  EXPECT_LT(result.at("best").at("step").get<int>(), result.at("steps").get<int>());

  const auto file = SafetensorsFile::open(best.out / "validation_predictions.safetensors").value();
  const auto p = file.get("probabilities", "F32", 2).value();
  const auto labels = file.get("labels", "I32", 1).value();
  std::vector<float> probabilities(20 * testing::kLabels);
  std::vector<std::int32_t> truth(20);
  std::memcpy(probabilities.data(), p.bytes.data(), p.bytes.size());
  std::memcpy(truth.data(), labels.bytes.data(), labels.bytes.size());
  int right = 0;
  for (std::size_t i = 0; i < 20; ++i) {
    const auto row = probabilities.begin() + static_cast<std::ptrdiff_t>(i * testing::kLabels);
    right += std::max_element(row, row + testing::kLabels) - row == truth[i] ? 1 : 0;
  }
  EXPECT_DOUBLE_EQ(right / 20.0, highest);
  EXPECT_FALSE(std::filesystem::exists(best.out / "checkpoint"));
}

TEST_F(TrainerTest, ACheckpointOfAnotherJobIsRefused) {
  Job first = job("other");
  first.pause_after_steps = 3;
  ASSERT_TRUE(train(first).result);
  first.resume = true;
  first.settings.learning_rate = 1e-4;
  const Trained run = train(first);
  ASSERT_FALSE(run.result);
  EXPECT_NE(run.result.error().message.find("belongs to another job"), std::string::npos) << run.result.error().message;
}

TEST_F(TrainerTest, ACheckpointOfAnotherModelIsRefused) {
  Job first = job("model");
  first.pause_after_steps = 3;
  ASSERT_TRUE(train(first).result);
  // The same shapes, one other number.
  const auto model = SafetensorsFile::open(first.base / "model.safetensors").value();
  std::vector<SafeTensor> tensors = model.tensors();
  std::string words(tensors[0].bytes);
  words[0] = static_cast<char>(words[0] ^ 1);
  tensors[0].bytes = words;
  write_safetensors(first.base / "model.safetensors", tensors).value();
  first.resume = true;
  const Trained run = train(first);
  ASSERT_FALSE(run.result);
  EXPECT_NE(run.result.error().message.find("belongs to another job (model, data or settings differ)"),
            std::string::npos)
      << run.result.error().message;
}

TEST_F(TrainerTest, ACheckpointOfAnotherVersionIsRefused) {
  Job first = job("version");
  first.pause_after_steps = 3;
  ASSERT_TRUE(train(first).result);
  const auto file = checkpoint_file(first.out);
  std::map<std::string, std::string> metadata;
  std::string bytes;
  std::vector<SafeTensor> tensors;
  {
    const auto stored = SafetensorsFile::open(file).value();
    metadata = stored.metadata();
    tensors = {*stored.find("values")};
    bytes = tensors[0].bytes;
    tensors[0].bytes = bytes;
  }
  metadata["version"] = "7";
  write_safetensors(file, tensors, metadata).value();
  first.resume = true;
  const Trained run = train(first);
  ASSERT_FALSE(run.result);
  EXPECT_NE(run.result.error().message.find("version 1, found 'tailor-tune-checkpoint' version '7'"), std::string::npos)
      << run.result.error().message;
}

/// 40 rows in batches of 32: every second batch is a partial one.
TEST_F(TrainerTest, ABatchInPassesOfOneRowIsTheBatch) {
  for (const char* method : {"full", "lora", "bitfit"}) {
    std::vector<std::vector<double>> losses;
    std::vector<std::vector<float>> predicted;
    for (const std::int64_t tokens : {1, 100000}) {
      Job one = job(std::string(method) + std::to_string(tokens));
      one.method = method;
      one.settings.dropout = one.settings.hidden_dropout = 0;
      one.settings.batch_size = 32;
      one.settings.max_steps = 6;
      one.settings.micro_batch_tokens = tokens;
      const Trained run = train(one);
      ASSERT_TRUE(run.result) << run.result.error().message;
      EXPECT_EQ(run.result->at("examples"), 3 * 40);
      losses.push_back(run.result->at("losses").get<std::vector<double>>());
      const auto file = SafetensorsFile::open(one.out / "test_predictions.safetensors").value();
      const auto p = file.get("probabilities", "F32", 2).value();
      predicted.emplace_back(p.bytes.size() / sizeof(float));
      std::memcpy(predicted.back().data(), p.bytes.data(), p.bytes.size());
    }
    ASSERT_EQ(losses[0].size(), 6U);
    for (std::size_t i = 0; i < 6; ++i) EXPECT_NEAR(losses[0][i], losses[1][i], 1e-4) << method << " step " << i;
    ASSERT_EQ(predicted[0].size(), predicted[1].size());
    for (std::size_t i = 0; i < predicted[0].size(); ++i)
      EXPECT_NEAR(predicted[0][i], predicted[1][i], 1e-3) << method << " " << i;
  }
}

TEST_F(TrainerTest, ACheckpointThatIsCutShortIsRefused) {
  Job first = job("cut");
  first.pause_after_steps = 3;
  ASSERT_TRUE(train(first).result);
  const auto file = checkpoint_file(first.out);
  std::filesystem::resize_file(file, std::filesystem::file_size(file) / 2);
  first.resume = true;
  const Trained run = train(first);
  ASSERT_FALSE(run.result);
  EXPECT_EQ(run.result.error().code, ErrorCode::kCorruptData);
}

TEST_F(TrainerTest, OneRowWithoutAFiniteLossIsNamedAndLeftOut) {
  Job bad = job("bad-row");
  // A word whose embedding is not a number, in one row only.
  TokenFile rows = testing::tiny_rows(10);
  rows.tokens[static_cast<std::size_t>(rows.offsets[12])] = 95;
  write_token_file(bad.tokens, rows).value();
  const auto model = SafetensorsFile::open(bad.base / "model.safetensors").value();
  std::vector<SafeTensor> tensors = model.tensors();
  std::string words(tensors[0].bytes);
  const float nan = std::numeric_limits<float>::quiet_NaN();
  std::memcpy(words.data() + (95 * 32 + 3) * sizeof(float), &nan, sizeof nan);
  tensors[0].bytes = words;
  write_safetensors(bad.base / "model.safetensors", tensors).value();

  bad.settings.lora.r = 2;
  bad.method = "lora";  // the embedding stays as it is
  const Trained run = train(bad);
  ASSERT_TRUE(run.result) << run.result.error().message;
  EXPECT_EQ(run.result->at("excluded_rows"), Json::array({112}));
  EXPECT_EQ(run.result->at("skipped_steps"), 0);
  for (const Json& loss : run.result->at("losses")) EXPECT_TRUE(loss.is_number());
  EXPECT_EQ(run.count("warning"), 1);
}

TEST_F(TrainerTest, ARateThatExplodesIsLoweredAndGivenUpWithAReason) {
  Job wild = job("wild");
  wild.settings.learning_rate = 1000;
  wild.settings.head_learning_rate = 1000;
  wild.settings.max_steps = 300;
  wild.settings.schedule = Schedule::kConstant;
  wild.evaluate_every_steps = 0;
  wild.evaluate_every_epochs = 0;
  const Trained run = train(wild);
  ASSERT_FALSE(run.result);
  EXPECT_NE(run.result.error().message.find("diverged"), std::string::npos) << run.result.error().message;
  EXPECT_NE(run.result.error().hint.find("learning_rate"), std::string::npos);
  int went_back = 0;
  for (const Json& event : run.events)
    went_back +=
        event.at("event") == "warning" && event.at("message").get<std::string>().find("going back") != std::string::npos
            ? 1
            : 0;
  EXPECT_EQ(went_back, 4);
}

TEST_F(TrainerTest, ARunWhoseRateExplodesEndsWithALowerOne) {
  Job wild = job("recovers");
  wild.settings.learning_rate = wild.settings.head_learning_rate = 1;
  wild.settings.dropout = wild.settings.hidden_dropout = 0;
  wild.settings.max_steps = 200;
  wild.settings.schedule = Schedule::kConstant;
  const Trained run = train(wild);
  ASSERT_TRUE(run.result) << run.result.error().message;
  const int rollbacks = run.result->at("rollbacks");
  EXPECT_GE(rollbacks, 1);
  EXPECT_EQ(run.count("warning"), rollbacks);
  const Json losses = run.result->at("losses");
  ASSERT_EQ(losses.size(), 200U) << "each step once, those that were taken back not counted";
  double last = 0;
  for (std::size_t i = 180; i < 200; ++i) last += losses[i].get<double>() / 20;
  EXPECT_LT(last, 2 * std::log(static_cast<double>(testing::kLabels)));
  double rate = 0;
  for (const Json& event : run.events) {
    if (event.at("event") == "step") rate = event.at("learning_rate");
  }
  EXPECT_DOUBLE_EQ(rate, std::pow(0.5, rollbacks));
}

TEST_F(TrainerTest, AFullDiskKeepsThePreviousCheckpoint) {
  Job whole = job("whole");
  const Json expected = train(whole).result.value();
  Job full = job("full-disk");
  full.pause_after_steps = 5;
  ASSERT_TRUE(train(full).result);
  const std::string before = bytes(checkpoint_file(full.out));

  full.resume = true;
  full.pause_after_steps = 0;
  full.checkpoint_every_steps = 1;
  const auto old_handler = std::signal(SIGXFSZ, SIG_IGN);
  rlimit old_limit{};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &old_limit), 0);
  // What was trained has room, moments and all have not.
  const rlimit small{.rlim_cur = std::filesystem::file_size(whole.out / "weights.safetensors") + 4096,
                     .rlim_max = old_limit.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
  const Trained failed = train(full);
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &old_limit), 0);
  std::signal(SIGXFSZ, old_handler);
  ASSERT_FALSE(failed.result);
  EXPECT_EQ(failed.result.error().code, ErrorCode::kIo);
  EXPECT_NE(failed.result.error().message.find("state.safetensors"), std::string::npos)
      << failed.result.error().message;
  EXPECT_EQ(bytes(checkpoint_file(full.out)), before);

  const Trained resumed = train(full);
  ASSERT_TRUE(resumed.result) << resumed.result.error().message;
  EXPECT_EQ(resumed.result->at("losses"), expected.at("losses"));
}

TEST_F(TrainerTest, WithoutValidationTheLastValuesAreKept) {
  Job plain = job("plain", 0);
  const Trained run = train(plain);
  ASSERT_TRUE(run.result) << run.result.error().message;
  EXPECT_TRUE(run.result->at("best").is_null());
  EXPECT_EQ(run.count("evaluation"), 0);
  EXPECT_EQ(run.result->at("files"), Json::array({"weights.safetensors", "test_predictions.safetensors"}));
}

// A head whose scores are 0 and four numbers of the vector lets the vector be read from the probabilities.
TEST_F(TrainerTest, AHeadForUnitVectorsReadsThem) {
  constexpr std::int64_t kWidth = 32, kRead = testing::kLabels - 1;
  const auto read = [&](bool unit) {
    std::vector<std::vector<double>> vectors;
    for (std::int64_t first = 0; first < kWidth; first += kRead) {
      std::vector<float> weight(testing::kLabels * kWidth), bias(testing::kLabels);
      for (std::int64_t i = 0; i < kRead; ++i) weight[static_cast<std::size_t>((i + 1) * kWidth + first + i)] = 1;
      Job answers = job(fmt::format("{}-{}", unit ? "unit" : "plain", first));
      answers.method = "features";
      answers.settings.epochs = answers.settings.max_steps = 0;
      answers.head = answers.out.parent_path() / "head.safetensors";
      const std::vector<SafeTensor> tensors{safe_tensor<float>(kHeadWeight, "F32", {testing::kLabels, kWidth}, weight),
                                            safe_tensor<float>(kHeadBias, "F32", {testing::kLabels}, bias)};
      std::map<std::string, std::string> metadata{{"format", kHeadFormat}};
      if (unit) metadata[kUnitVectors] = "true";
      write_safetensors(answers.head, tensors, metadata).value();
      EXPECT_TRUE(train(answers).result);
      const auto made = SafetensorsFile::open(answers.out / "weights.safetensors").value();
      EXPECT_EQ(reads_unit_vectors(made.metadata()), unit);
      const auto file = SafetensorsFile::open(answers.out / "validation_predictions.safetensors").value();
      const SafeTensor p = file.get("probabilities", "F32", 2).value();
      std::vector<float> values(p.bytes.size() / sizeof(float));
      std::memcpy(values.data(), p.bytes.data(), p.bytes.size());
      vectors.resize(static_cast<std::size_t>(p.shape[0]));
      for (std::size_t r = 0; r < vectors.size(); ++r) {
        for (std::size_t i = 1; i < testing::kLabels; ++i)
          vectors[r].push_back(std::log(values[r * testing::kLabels + i] / values[r * testing::kLabels]));
      }
    }
    return vectors;
  };
  const auto plain = read(false), unit = read(true);
  ASSERT_EQ(unit.size(), 10U);
  for (std::size_t r = 0; r < unit.size(); ++r) {
    const double length = std::sqrt(std::inner_product(plain[r].begin(), plain[r].end(), plain[r].begin(), 0.0));
    EXPECT_GT(std::abs(length - 1), 0.01) << "so that it matters";
    for (std::size_t i = 0; i < unit[r].size(); ++i) EXPECT_NEAR(unit[r][i], plain[r][i] / length, 1e-4);
  }

  // Contrast has no other vectors.
  Job contrast = job("contrastive-plain");
  contrast.method = "contrastive";
  contrast.head = dir_.path() / "plain-0" / "head.safetensors";
  const Trained refused = train(contrast);
  ASSERT_FALSE(refused.result);
  EXPECT_NE(refused.result.error().message.find("is no head for vectors of length 1"), std::string::npos);
}

TEST_F(TrainerTest, TheHeadOfAnEarlierRunIsTheStart) {
  Job head = job("head");
  head.method = "head";
  ASSERT_TRUE(train(head).result);
  Job full = job("full");
  full.head = head.out / "weights.safetensors";
  full.settings.learning_rate = full.settings.head_learning_rate = 1e-12;
  full.settings.max_steps = 1;
  const Trained run = train(full);
  ASSERT_TRUE(run.result) << run.result.error().message;
  const auto probabilities = [&](const Job& job) {
    const auto file = SafetensorsFile::open(job.out / "validation_predictions.safetensors").value();
    const auto tensor = file.get("probabilities", "F32", 2).value();
    std::vector<float> values(tensor.bytes.size() / sizeof(float));
    std::memcpy(values.data(), tensor.bytes.data(), tensor.bytes.size());
    return values;
  };
  const auto expected = probabilities(head), seen = probabilities(full);
  ASSERT_EQ(seen.size(), expected.size());
  for (std::size_t i = 0; i < seen.size(); ++i) EXPECT_NEAR(seen[i], expected[i], 1e-5) << i;

  TokenFile rows = testing::tiny_rows(10);
  rows.n_labels = 6;
  write_token_file(full.tokens, rows).value();
  full.out = dir_.path() / "wrong";
  const Trained wrong = train(full);
  ASSERT_FALSE(wrong.result);
  EXPECT_NE(wrong.result.error().message.find("head.weight has shape [5, 32], this job needs [6, 32]"),
            std::string::npos)
      << wrong.result.error().message;
}

TEST_F(TrainerTest, JobsThatCannotWorkSayWhy) {
  const auto message = [&](const Job& job) {
    const Trained run = train(job);
    return run.result ? std::string() : to_string(run.result.error());
  };
  Job wrong = job("wrong");
  wrong.n_labels = 7;
  EXPECT_NE(message(wrong).find("it has 5 labels, the job says 7"), std::string::npos);
  wrong = job("long");
  TokenFile rows = testing::tiny_rows();
  rows.add_row(std::vector<std::int32_t>(41, 1), 0, TokenPart::kTrain, 999);
  write_token_file(wrong.tokens, rows).value();
  EXPECT_NE(message(wrong).find("row 999 has 41 tokens, the model's context is 40"), std::string::npos);
  wrong = job("rank");
  wrong.method = "lora";
  wrong.settings.lora.r = 33;
  EXPECT_NE(message(wrong).find("lora.r is 33"), std::string::npos);
  wrong = job("task");
  wrong.task = Task::kCausalLmLabels;
  EXPECT_NE(message(wrong).find("architecture 'bert'"), std::string::npos);
  wrong = job("none");
  wrong.base = dir_.path() / "absent.gguf";
  EXPECT_NE(message(wrong).find("absent.gguf"), std::string::npos);
}

}  // namespace
}  // namespace tailor::tune
