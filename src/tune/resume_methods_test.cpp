// Every method: a run that is paused and goes on is equal, bit by bit, to one that is not.

#include <gtest/gtest.h>

#include <chrono>
#include <filesystem>

#include "core/files.h"
#include "tune/decoder_family_model.h"
#include "tune/encoder_test_model.h"
#include "tune/methods.h"
#include "tune/run_job.h"

namespace tailor::tune {
namespace {

namespace fs = std::filesystem;

Json train(const Job& job) {
  const CancelToken never;
  auto result = run_job(
      job, [](const Json&) {}, never, std::chrono::steady_clock::now());
  EXPECT_TRUE(result) << result.error().message;
  return result ? *result : Json();
}

/// Once in one go, once with two pauses; `job(name)` has that directory for its output.
template <typename MakeJob>
void expect_resumed_as_whole(const MakeJob& make_job) {
  const Job whole = make_job("whole");
  const Json expected = train(whole);
  Job parts = make_job("parts");
  parts.resume = true;
  Json resumed;
  for (const int pause : {2, 5, 0}) {
    parts.pause_after_steps = pause;
    resumed = train(parts);
    ASSERT_EQ(resumed.at("stopped"), pause > 0 ? "paused" : "finished");
  }
  EXPECT_EQ(resumed.at("resumed_from_step"), 5);
  for (const char* key : {"losses", "evaluations", "best", "tokens", "examples"})
    EXPECT_EQ(resumed.at(key), expected.at(key)) << key;
  std::size_t compared = 0;
  for (const auto& entry : fs::recursive_directory_iterator(whole.out)) {
    if (entry.path().extension() != ".safetensors" || entry.path().filename() == "checkpoint.safetensors") continue;
    const fs::path other = parts.out / entry.path().lexically_relative(whole.out);
    EXPECT_EQ(read_file(entry.path()).value(), read_file(other).value()) << other;
    ++compared;
  }
  EXPECT_GE(compared, 2U);  // what was trained, and what it answers
}

TEST(ResumedMethods, OfAnEncoderGoOnBitByBit) {
  for (const Method& method : methods()) {
    if (method.encoder == nullptr || method.name == "features") continue;  // which takes no step
    SCOPED_TRACE(method.name);
    const TemporaryDirectory dir;
    expect_resumed_as_whole([&](const std::string& name) {
      fs::create_directories(dir.path() / name);
      TokenFile rows = testing::tiny_rows(10, 4);
      if (method.name == "distill") rows.soft_targets.assign(rows.rows() * testing::kLabels, 1.0f / testing::kLabels);
      Job job = testing::tiny_job(dir.path() / name, rows, std::string(method.name));
      method.set_defaults(job.settings, job.task);
      job.settings.max_steps = 8;
      job.settings.adapter.size = 4;
      job.settings.dropout = 0.2;  // the masks must be resumed too
      job.settings.hidden_dropout = 0.1;
      job.settings.lora.dropout = 0.1;
      job.evaluate_every_steps = 3;
      return job;
    });
  }
}

TEST(ResumedMethods, OfADecoderGoOnBitByBit) {
  const decoder::TinyFamily t = decoder::tiny_family("gptneox");  // it has biases
  const auto tokens = t.golden["tokens"].get<std::vector<std::int32_t>>();
  TokenFile rows;
  rows.vocab_size = static_cast<std::int32_t>(t.model.vocab);
  for (std::int32_t r = 0; r < 16; ++r) {
    std::vector<std::int32_t> row(tokens.begin(), tokens.end() - r % 5);
    row[row.size() - 2] = 3 + r;
    std::vector<std::uint8_t> mask(row.size(), 0);
    std::fill(mask.end() - 3, mask.end(), std::uint8_t{1});
    rows.add_row(row, -1, r < 12 ? TokenPart::kTrain : r < 14 ? TokenPart::kValidation : TokenPart::kTest, r, mask);
  }
  for (const Method& method : methods()) {
    if (method.decoder == nullptr || method.name == "distill") continue;  // lora's own path, with other rows
    SCOPED_TRACE(method.name);
    const TemporaryDirectory dir;
    const bool blocks = method.name == "qlora";
    decoder::write_gguf(t.model, dir.path() / "m.gguf", blocks ? GGML_TYPE_Q8_0 : GGML_TYPE_F32);
    write_token_file(dir.path() / "tokens.safetensors", rows).value();
    expect_resumed_as_whole([&](const std::string& name) {
      Job job;
      job.method = method.name;
      job.task = Task::kCausalLm;
      job.base = dir.path() / "m.gguf";
      job.tokens = dir.path() / "tokens.safetensors";
      job.out = dir.path() / name;
      job.seed = 4;
      job.threads = 2;
      job.checkpoint_every_seconds = 0;
      job.metric = Metric::kLoss;
      method.set_defaults(job.settings, job.task);
      job.settings.max_steps = 8;
      job.settings.batch_size = 3;
      job.settings.lora.r = 2;
      job.settings.lora.dropout = 0.1;
      job.settings.adapter.size = 4;
      job.settings.soft_prompt.tokens = 3;
      job.settings.soft_prompt.hidden = 6;
      job.evaluate_every_steps = 3;
      return job;
    });
  }
}

}  // namespace
}  // namespace tailor::tune
