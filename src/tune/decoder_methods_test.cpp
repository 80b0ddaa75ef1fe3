// Parity of the decoder's tuning methods with PEFT and plain PyTorch: tests/golden/decoder_methods_golden.py.

#include <gtest/gtest.h>

#include "tune/decoder_test_model.h"
#include "tune/method_parity.h"

namespace tailor::tune::decoder {
namespace {

/// A teacher's answers as the golden script has them: row 4 has none, row 5 no label.
void add_teacher(TokenFile& file) {
  const float teacher[3][3] = {{0.7f, 0.2f, 0.1f}, {0.1f, 0.6f, 0.3f}, {0.05f, 0.15f, 0.8f}};
  for (std::size_t r = 0; r < file.rows(); ++r) {
    for (const float p : teacher[r % 3]) file.soft_targets.push_back(r < 9 && r != 4 ? p : 0.0f);
  }
  file.labels[5] = -1;
}

class DecoderMethods : public ::testing::TestWithParam<const char*> {};

void train_and_compare(const std::string& name, const Json& more) {
  const Json reference = golden("decoder_methods.json").at(name);
  const TemporaryDirectory dir;
  write_gguf(tiny_model(name == "full-tied"), dir.path() / "base.gguf");
  TokenFile rows = labelled_rows();
  if (name == "distill") add_teacher(rows);
  tune::testing::MethodRun run = tune::testing::train_as(reference, reference.at("method"), "causal-lm-labels", 5,
                                                         dir.path() / "base.gguf", rows, dir.path(), more);
  tune::testing::expect_run(run, reference);
  EXPECT_EQ(run.result.at("model").contains("frozen_layers_kept"), name == "upper-layers");  // rows come more than once
  const tune::testing::NamedValues expected = tune::testing::read_values(
      environment_path("TAILOR_SOURCE_DIR") / "tests/golden/data/decoder_methods.safetensors", name + "/");
  if (reference.at("method") == "full" || name == "lora-whole") {  // of which only some are kept
    EXPECT_GT(run.trained.size(), expected.size());
    std::erase_if(run.trained, [&](const auto& tensor) { return !expected.contains(tensor.first); });
  }
  tune::testing::expect_trained(run.trained, expected);
}

TEST_P(DecoderMethods, TrainsAsTheReference) {
  train_and_compare(GetParam(), Json::object());
}
TEST_P(DecoderMethods, TrainsAsTheReferenceInPlainAten) {
  train_and_compare(GetParam(), Json{{"kernels", "portable"}});
}

/// Nine rows in batches of four: the last one of each epoch is a part.
TEST(DecoderBatches, InPassesOfOneRowAreTheBatch) {
  for (const char* method : {"lora", "full", "ia3", "prompt-tuning"}) {
    std::vector<std::vector<double>> losses;
    std::vector<std::vector<float>> probabilities;
    for (const std::int64_t tokens : {1, 100000}) {
      const TemporaryDirectory dir;
      write_gguf(tiny_model(false), dir.path() / "base.gguf");
      const Json settings = {
          {"batch_size", 4}, {"max_steps", 6}, {"learning_rate", 5e-3}, {"micro_batch_tokens", tokens}};
      const tune::testing::MethodRun run =
          tune::testing::train_as({{"settings", settings}}, method, "causal-lm-labels", 5, dir.path() / "base.gguf",
                                  labelled_rows(), dir.path());
      EXPECT_EQ(run.result.at("examples"), 18) << "two epochs";
      losses.push_back(run.result.at("losses").get<std::vector<double>>());
      probabilities.push_back(run.probabilities);
    }
    ASSERT_EQ(losses[0].size(), 6U);
    for (std::size_t i = 0; i < 6; ++i) EXPECT_NEAR(losses[0][i], losses[1][i], 1e-4) << method << " step " << i;
    ASSERT_EQ(probabilities[0].size(), probabilities[1].size());
    for (std::size_t i = 0; i < probabilities[0].size(); ++i)
      EXPECT_NEAR(probabilities[0][i], probabilities[1][i], 1e-3) << method;
  }
}

INSTANTIATE_TEST_SUITE_P(All, DecoderMethods,
                         ::testing::Values("rslora", "dora", "pissa", "full", "full-tied", "upper-layers", "layernorm",
                                           "ia3", "adapter-houlsby", "adapter-pfeiffer", "adapter-parallel",
                                           "lora-plus", "lora-whole", "distill", "prompt-tuning", "p-tuning-mlp",
                                           "p-tuning-lstm", "prefix-tuning", "prompt-tuning-residual",
                                           "prefix-tuning-mlp"),
                         [](const auto& test) {
                           std::string test_name = test.param;
                           std::replace(test_name.begin(), test_name.end(), '-', '_');
                           return test_name;
                         });

}  // namespace
}  // namespace tailor::tune::decoder
