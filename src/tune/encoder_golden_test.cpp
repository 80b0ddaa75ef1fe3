// Parity with transformers and PEFT: tests/golden/encoder_golden.py.

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "core/json.h"
#include "tune/data_order.h"
#include "tune/encoder_classifier.h"
#include "tune/encoder_test_model.h"
#include "tune/hf_names.h"
#include "tune/kernels.h"
#include "tune/run_job.h"

namespace tailor::tune {
namespace {

Json train(const Job& job) {
  return run_job(
             job, [](const Json&) {}, CancelToken(), std::chrono::steady_clock::now())
      .value();
}

void expect_losses(const Json& result, const Json& reference, double tolerance) {
  const auto losses = result.at("losses").get<std::vector<double>>();
  const auto expected = reference.at("losses").get<std::vector<double>>();
  ASSERT_EQ(losses.size(), expected.size());
  double worst = 0;
  for (std::size_t i = 0; i < losses.size(); ++i) worst = std::max(worst, std::abs(losses[i] - expected[i]));
  EXPECT_LT(worst, tolerance);
  ::testing::Test::RecordProperty("largest_difference", std::to_string(worst));
}

std::vector<float> stored(const SafetensorsFile& file, const std::string& name) {
  const SafeTensor* tensor = file.find(name);
  if (tensor == nullptr) throw Exception({ErrorCode::kNotFound, name + " is not in the golden file", ""});
  std::vector<float> values(tensor->bytes.size() / sizeof(float));
  std::memcpy(values.data(), tensor->bytes.data(), tensor->bytes.size());
  return values;
}

class EncoderGolden : public ::testing::Test {
 protected:
  TemporaryDirectory dir_;
  const Json reference_ = read_json(testing::golden("encoder_golden.json")).value();
  const SafetensorsFile tensors_ = SafetensorsFile::open(testing::golden("encoder_golden.safetensors")).value();
};

TEST_F(EncoderGolden, FullTuningHasTheLossesOfTransformers) {
  const Json result = train(testing::tiny_job(dir_.path(), testing::tiny_rows()));
  expect_losses(result, reference_.at("full"), 1e-5);

  // Unused words decay as under a dense optimiser, used ones move with it.
  const auto weights = SafetensorsFile::open(dir_.path() / "out" / "weights.safetensors").value();
  for (const auto& [ours, theirs] : {std::pair{"token_embd.weight", "final.embeddings.word_embeddings.weight"},
                                     {"position_embd.weight", "final.embeddings.position_embeddings.weight"}}) {
    const auto values = stored(weights, ours);
    const auto expected = stored(tensors_, theirs);
    ASSERT_EQ(values.size(), expected.size());
    for (std::size_t i = 0; i < values.size(); ++i) ASSERT_NEAR(values[i], expected[i], 2e-4) << ours << " " << i;
  }
}

TEST_F(EncoderGolden, PlainAtenHasTheLossesOfTransformersAndPeft) {
  for (const std::string method : {"full", "lora"}) {
    Job job = testing::tiny_job(dir_.path(), testing::tiny_rows(), method);
    job.kernels = Kernels::kPortable;
    expect_losses(train(job), reference_.at(method), 1e-5);
    std::filesystem::remove_all(job.out);
  }
}

TEST_F(EncoderGolden, LabelSmoothingIsThatOfTorch) {
  Job job = testing::tiny_job(dir_.path(), testing::tiny_rows());
  job.settings.label_smoothing = 0.1;
  expect_losses(train(job), reference_.at("full_smoothed"), 1e-5);
}

TEST_F(EncoderGolden, SmallMicroBatchesGiveTheSameLosses) {
  Job job = testing::tiny_job(dir_.path(), testing::tiny_rows());
  job.settings.micro_batch_tokens = 12;
  expect_losses(train(job), reference_.at("full"), 1e-5);
}

TEST_F(EncoderGolden, LoraHasTheLossesOfPeft) {
  expect_losses(train(testing::tiny_job(dir_.path(), testing::tiny_rows(), "lora")), reference_.at("lora"), 1e-5);
}

TEST_F(EncoderGolden, LoraOnSomeModulesHasTheLossesOfPeft) {
  Job job = testing::tiny_job(dir_.path(), testing::tiny_rows(), "lora");
  job.settings.lora.target_modules = {"key", "ffn_up"};
  expect_losses(train(job), reference_.at("lora_partial"), 1e-5);
}

TEST_F(EncoderGolden, GradientsOfTheFirstStepAreThoseOfTransformersAndPeft) {
  for (const auto& [method, kernels] : std::vector<std::pair<std::string, Kernels>>{{"full", Kernels::kNative},
                                                                                    {"lora", Kernels::kNative},
                                                                                    {"full", Kernels::kPortable},
                                                                                    {"lora", Kernels::kPortable}}) {
    const KernelsGuard formulation(kernels);
    const TokenFile rows = testing::tiny_rows();
    const Job job = testing::tiny_job(dir_.path(), rows, method);
    const BaseWeights weights = BaseWeights::open(job.base).value();
    EncoderOptions options;
    if (method == "full")
      options.trained = [](std::string_view) { return true; };
    else
      options.lora_targets = resolve_lora_targets({"all-linear"}, "bert", EncoderConfig::read(weights).layers);
    options.lora = job.settings.lora;
    EncoderClassifier model(weights, rows, job, options);
    DataOrder order(rows_of(rows, TokenPart::kTrain), job.settings.batch_size, job.seed);
    const RowSpan batch = order.batch(0);
    model.forward_backward(batch, {.denominator = static_cast<double>(batch.size()), .seed = 1, .step = 0});

    std::size_t compared = 0;
    for (const SafeTensor& golden : tensors_.tensors()) {
      if (!golden.name.starts_with(method + ".")) continue;
      std::string name = golden.name.substr(method.size() + 1);
      bool lora_a = false;
      if (const auto adapter = name.find(".lora_"); adapter != std::string::npos) {
        lora_a = name[adapter + 6] == 'A';
        name = *gguf_name_of_encoder(name.substr(0, adapter) + ".weight");
        name.replace(name.rfind(".weight"), 7, lora_a ? ".lora_a" : ".lora_b");
      } else if (!name.starts_with("head.")) {
        name = *gguf_name_of_encoder(name);
      }
      const auto expected = stored(tensors_, golden.name);
      const at::Tensor grad = model.parameters().at(name).grad;
      const float* values = grad.data_ptr<float>();
      if (name == "token_embd.weight" || name == "position_embd.weight" || name == "token_types.weight") {
        // Our tables hold the rows in use only, in the order of their numbers; the gradient of the others is 0.
        std::size_t row = 0;
        const std::size_t d = 32;
        for (std::size_t r = 0; r < expected.size() / d; ++r) {
          bool used = name == "token_types.weight"     ? r == 0
                      : name == "position_embd.weight" ? r < static_cast<std::size_t>(grad.size(0))
                                                       : false;
          if (name == "token_embd.weight")
            used = std::find(rows.tokens.begin(), rows.tokens.end(), static_cast<std::int32_t>(r)) != rows.tokens.end();
          for (std::size_t c = 0; c < d; ++c)
            ASSERT_NEAR(used ? values[row * d + c] : 0, expected[r * d + c], 1e-5) << name << " row " << r;
          if (used) ++row;
        }
      } else {
        ASSERT_EQ(static_cast<std::size_t>(grad.numel()), expected.size()) << name;
        for (std::size_t i = 0; i < expected.size(); ++i) ASSERT_NEAR(values[i], expected[i], 1e-5) << name << " " << i;
      }
      ++compared;
    }
    EXPECT_EQ(compared, model.parameters().size());
  }
}

// The default model, from its Hugging Face directory.
TEST(EncoderMiniLm, TwentyStepsHaveTheLossesOfTransformersAndPeft) {
  const char* models = std::getenv("TAILOR_MODELS_DIR");
  ASSERT_NE(models, nullptr) << "TAILOR_MODELS_DIR names the directory of the default models";
  const Json reference = read_json(testing::golden("encoder_minilm.json")).value();
  TokenFile rows;
  rows.n_labels = 4;
  rows.vocab_size = 30522;
  for (std::size_t i = 0; i < reference.at("rows").size(); ++i) {
    rows.add_row(reference.at("rows")[i].get<std::vector<std::int32_t>>(),
                 reference.at("labels")[i].get<std::int32_t>(), TokenPart::kTrain, static_cast<std::int64_t>(i));
  }
  for (const std::string method : {"full", "lora"}) {
    const TemporaryDirectory dir;
    Job job = testing::tiny_job(dir.path(), rows, method);
    job.base = std::filesystem::path(models) / "all-minilm-l6-v2";
    job.settings.batch_size = 8;
    job.settings.weight_decay = 0.01;
    job.settings.learning_rate = reference.at(method).at("rate");
    job.settings.head_learning_rate = reference.at(method).at("head_rate");
    job.settings.lora = {.r = 8, .alpha = 16, .dropout = 0, .target_modules = {"all-linear"}};
    expect_losses(train(job), reference.at(method), 1e-4);
  }
}

}  // namespace
}  // namespace tailor::tune
