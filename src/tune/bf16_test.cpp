// Settings dtype bf16: what is trained on, kept and written is the model with rounded matrices.

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "tune/decoder_test_model.h"
#include "tune/encoder_test_model.h"
#include "tune/method_parity.h"

namespace tailor::tune {
namespace {

std::vector<float> rounded(const std::vector<float>& values) {
  const at::Tensor t = at::tensor(values, at::kFloat).to(at::kBFloat16).to(at::kFloat);
  return {t.data_ptr<float>(), t.data_ptr<float>() + t.numel()};
}

bool is_layer_matrix(const std::string& name, std::size_t dimensions) {
  return dimensions == 2 && name.find(".layer.") != std::string::npos;
}

/// The tiny BERT; with `round`, its layers' matrices rounded.
void write_bert(const std::filesystem::path& dir, bool round) {
  testing::write_tiny_bert(dir);
  if (!round) return;
  std::vector<std::vector<float>> values;
  std::vector<SafeTensor> tensors;
  std::vector<std::vector<std::int64_t>> shapes;
  std::vector<std::string> names;
  {
    const SafetensorsFile file = SafetensorsFile::open(dir / "model.safetensors").value();
    for (const SafeTensor& t : file.tensors()) {
      std::vector<float>& v = values.emplace_back(t.bytes.size() / sizeof(float));
      std::memcpy(v.data(), t.bytes.data(), t.bytes.size());
      if (is_layer_matrix(t.name, t.shape.size())) v = rounded(v);
      names.push_back(t.name);
      shapes.push_back(t.shape);
    }
  }
  for (std::size_t i = 0; i < names.size(); ++i)
    tensors.push_back(safe_tensor<float>(names[i], "F32", shapes[i], values[i]));
  write_safetensors(dir / "model.safetensors", tensors).value();
}

void expect_near(const std::vector<float>& seen, const std::vector<float>& expected, double tolerance) {
  ASSERT_EQ(seen.size(), expected.size());
  for (std::size_t i = 0; i < seen.size(); ++i) ASSERT_NEAR(seen[i], expected[i], tolerance) << i;
}

class EncoderInBf16 : public ::testing::TestWithParam<const char*> {};

TEST_P(EncoderInBf16, IsTrainedAndWrittenAsTheRoundedModel) {
  const std::string method = GetParam();
  const auto train = [&](bool round, const char* dtype, const char* kernels) {
    const TemporaryDirectory dir;
    write_bert(dir.path(), round);
    Json golden{{"settings", {{"max_steps", 6}, {"batch_size", 8}, {"hidden_dropout", 0.1}, {"dtype", dtype}}}};
    if (method.starts_with("adapter")) golden["settings"]["adapter"] = {{"size", 8}};
    return testing::train_as(golden, method, "sequence-classification", 3, dir.path(), testing::tiny_rows(0, 10),
                             dir.path(), Json{{"export_merged", true}, {"kernels", kernels}});
  };
  const testing::MethodRun expected = train(true, "f32", "native"), plain = train(false, "f32", "native");
  EXPECT_EQ(expected.result["model"]["base_in_memory"], "f32");
  for (const char* kernels : {"native", "portable"}) {
    const testing::MethodRun seen = train(false, "bf16", kernels);
    EXPECT_EQ(seen.result["model"]["base_in_memory"], "bf16");
    EXPECT_EQ(seen.result["settings"]["dtype"], "bf16");
    const auto losses = seen.result["losses"].get<std::vector<double>>();
    const auto wanted = expected.result["losses"].get<std::vector<double>>();
    for (std::size_t i = 0; i < losses.size(); ++i) EXPECT_NEAR(losses[i], wanted[i], 1e-5) << i;
    EXPECT_NE(losses, plain.result["losses"].get<std::vector<double>>());
    expect_near(seen.probabilities, expected.probabilities, 1e-4);
    // Every matrix of the layers is written: trained, merged or as it was kept. What serves takes all of them.
    std::size_t matrices = 0;
    for (const auto& [name, values] : seen.trained) {
      const bool adapter = name.find("lora_") != std::string::npos || name.find("adapter") != std::string::npos;
      if (values.shape.size() != 2 || !name.starts_with("blk.") || adapter) continue;
      ++matrices;
      if (const auto found = expected.trained.find(name); found != expected.trained.end()) {
        expect_near(values.numbers, found->second.numbers, 3e-5);
      } else {
        EXPECT_EQ(values.numbers, rounded(values.numbers)) << name;
      }
    }
    EXPECT_EQ(matrices, 2U * 6U);
  }
}

INSTANTIATE_TEST_SUITE_P(All, EncoderInBf16,
                         ::testing::Values("lora", "dora", "ia3", "bitfit", "layernorm", "adapter-houlsby"),
                         [](const auto& test) {
                           std::string name = test.param;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

class DecoderInBf16 : public ::testing::TestWithParam<const char*> {};

TEST_P(DecoderInBf16, IsTrainedAsTheRoundedModel) {
  const std::string method = GetParam();
  TokenFile rows;
  rows.vocab_size = 128;
  const Json all = decoder::golden("decoder_tiny.json").at("rows");
  for (std::size_t r = 0; r < 8; ++r) {
    const auto tokens = all[r].at("tokens").get<std::vector<std::int32_t>>();
    std::vector<std::uint8_t> mask(tokens.size(), 0);
    std::fill(mask.end() - 2, mask.end(), std::uint8_t{1});
    rows.add_row(tokens, -1, r < 6 ? TokenPart::kTrain : TokenPart::kTest, static_cast<std::int64_t>(r), mask);
  }
  const auto train = [&](bool round, const char* dtype, const char* kernels) {
    const TemporaryDirectory dir;
    decoder::TestModel model = decoder::tiny_model(false);
    for (decoder::TestTensor& t : model.tensors) {
      if (round && t.shape.size() == 2) t.values = rounded(t.values);
    }
    decoder::write_gguf(model, dir.path() / "base.gguf");
    Json golden{{"settings", {{"max_steps", 6}, {"batch_size", 3}, {"dtype", dtype}}}};
    if (method.starts_with("adapter")) golden["settings"]["adapter"] = {{"size", 8}};
    write_token_file(dir.path() / "tokens.safetensors", rows).value();
    Json value{{"format", "tailor-tune-job"},
               {"version", 1},
               {"task", "causal-lm"},
               {"method", method},
               {"base", "base.gguf"},
               {"tokens", "tokens.safetensors"},
               {"out", "out"},
               {"seed", 3},
               {"settings", golden["settings"]},
               {"kernels", kernels},
               {"checkpoint_every_seconds", 0}};
    const Job job = parse_job(value, "job.json", dir.path()).value();
    const Json result = run_job(
                            job, [](const Json&) {}, CancelToken(), std::chrono::steady_clock::now())
                            .value();
    testing::NamedValues weights;
    if (std::filesystem::exists(job.out / "weights.safetensors"))
      weights = testing::read_values(job.out / "weights.safetensors");
    return std::pair{result, weights};
  };
  const auto [expected, merged] = train(true, "f32", "native");
  for (const char* kernels : {"native", "portable"}) {
    const auto [seen, weights] = train(false, "bf16", kernels);
    EXPECT_EQ(seen["model"]["base_in_memory"], "bf16");
    const auto losses = seen["losses"].get<std::vector<double>>(),
               wanted = expected["losses"].get<std::vector<double>>();
    ASSERT_EQ(losses.size(), wanted.size());
    for (std::size_t i = 0; i < losses.size(); ++i) EXPECT_NEAR(losses[i], wanted[i], 2e-5) << i;
    for (const auto& [name, values] : merged) expect_near(weights.at(name).numbers, values.numbers, 5e-5);
  }
}

INSTANTIATE_TEST_SUITE_P(All, DecoderInBf16,
                         ::testing::Values("lora", "dora", "ia3", "layernorm", "adapter-parallel", "prompt-tuning",
                                           "prefix-tuning"),
                         [](const auto& test) {
                           std::string name = test.param;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

}  // namespace
}  // namespace tailor::tune
