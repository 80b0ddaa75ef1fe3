// Parity of the encoder's tuning methods with PEFT and plain PyTorch: tests/golden/encoder_methods_golden.py, which
// says where ours is one choice of several.

#include <gtest/gtest.h>

#include <cmath>

#include "core/head_file.h"
#include "core/safetensors.h"
#include "tune/encoder_test_model.h"
#include "tune/head.h"
#include "tune/method_parity.h"

namespace tailor::tune {
namespace {

constexpr int kTested = 10;

/// A teacher's answers as the golden script draws them; every fifth row has none, every fifth other row no label.
void add_teacher(TokenFile& file) {
  constexpr std::uint64_t kTeacherStream = 77;
  Rng rng(testing::kSeed, kTeacherStream);
  for (std::size_t i = 0; i < file.rows(); ++i) {
    std::vector<double> weights(testing::kLabels, 0);
    double total = 0;
    if (file.parts[i] == TokenPart::kTrain) {
      for (double& w : weights) total += w = std::pow(rng.uniform(), 3);
    }
    const bool answered = total > 0 && i % 5 != 0;
    for (const double w : weights) file.soft_targets.push_back(answered ? static_cast<float>(w / total) : 0.0f);
    if (file.parts[i] == TokenPart::kTrain && i % 5 == 1) file.labels[i] = -1;
  }
}

class EncoderMethodsTest : public ::testing::Test {
 protected:
  testing::MethodRun train(const Json& golden, const std::string& method, const Json& more = Json::object()) {
    const TemporaryDirectory dir;
    testing::write_tiny_bert(dir.path());
    TokenFile rows = testing::tiny_rows(0, kTested);
    if (method == "distill") add_teacher(rows);
    return testing::train_as(golden, method, "sequence-classification", testing::kSeed, dir.path(), rows, dir.path(),
                             more);
  }
  /// With a head for vectors of length 1 whose first values are those of a random one.
  testing::MethodRun train_with_unit_head(const Json& golden, const std::string& method) {
    constexpr std::int64_t kWidth = 32;
    const TemporaryDirectory dir;
    testing::write_tiny_bert(dir.path());
    Rng rng(testing::kSeed, kHeadStream);
    std::vector<float> weight(testing::kLabels * kWidth), bias(testing::kLabels, 0.0f);
    for (float& w : weight) w = static_cast<float>(0.02 * rng.normal());
    const std::vector<SafeTensor> head{safe_tensor<float>(kHeadWeight, "F32", {testing::kLabels, kWidth}, weight),
                                       safe_tensor<float>(kHeadBias, "F32", {testing::kLabels}, bias)};
    write_safetensors(dir.path() / "head.safetensors", head, {{"format", kHeadFormat}, {kUnitVectors, "true"}}).value();
    return testing::train_as(golden, method, "sequence-classification", testing::kSeed, dir.path(),
                             testing::tiny_rows(0, kTested), dir.path(), {{"head", "head.safetensors"}});
  }
  static testing::NamedValues expected_of(const std::string& name) {
    return testing::read_values(testing::golden("encoder_methods.safetensors"), name + "/");
  }
  const Json golden_ = read_json(testing::golden("encoder_methods.json")).value();
};

class EncoderMethods : public EncoderMethodsTest, public ::testing::WithParamInterface<const char*> {
 protected:
  void train_and_compare(const Json& more);
};

/// A singular vector has no sign of its own: turns pairs of A's rows and B's columns to the side of `expected`.
void align_signs(testing::NamedValues& seen, const testing::NamedValues& expected) {
  for (auto& [name, a] : seen) {
    const auto suffix = name.find("lora_A");
    if (suffix == std::string::npos) continue;
    std::string name_of_b = name;
    testing::Values& b = seen.at(name_of_b.replace(suffix, 6, "lora_B"));
    const testing::Values& target = expected.at(name);
    ASSERT_EQ(a.shape, target.shape) << name;
    const auto rank = static_cast<std::size_t>(a.shape[0]), in = static_cast<std::size_t>(a.shape[1]);
    for (std::size_t r = 0; r < rank; ++r) {
      double product = 0;
      for (std::size_t c = 0; c < in; ++c)
        product += static_cast<double>(a.numbers[r * in + c]) * target.numbers[r * in + c];
      if (product > 0) continue;
      for (std::size_t c = 0; c < in; ++c) a.numbers[r * in + c] *= -1;
      for (std::size_t o = r; o < b.numbers.size(); o += rank) b.numbers[o] *= -1;
    }
  }
}

void EncoderMethods::train_and_compare(const Json& more) {
  const std::string method = GetParam();
  const Json& golden = golden_.at(method);
  testing::MethodRun run = train(golden, method, more);
  testing::expect_run(run, golden);
  EXPECT_EQ(run.result.at("model").contains("frozen_layers_kept"), method == "upper-layers");
  testing::NamedValues expected = testing::read_values(testing::golden("encoder_methods.safetensors"), method + "/");
  if (method == "pissa") align_signs(run.trained, expected);
  // Attention does not see a bias that all keys share: its gradient is rounding, which AdamW blows up to whole steps.
  // (IA3 does not train it, but scales it.)
  for (testing::NamedValues* values : {&run.trained, &expected}) {
    for (auto& [name, value] : *values) {
      if (name.ends_with("attn_k.bias") && method != "ia3") std::fill(value.numbers.begin(), value.numbers.end(), 0.0f);
    }
  }
  // Where every weight is trained, words and places that no row has are compared by encoder_golden_test.cpp.
  if (method == "distill") {
    for (const char* table : {"token_embd.weight", "position_embd.weight", "token_types.weight"})
      run.trained.erase(table);
  }
  testing::expect_trained(run.trained, expected);
}

TEST_P(EncoderMethods, TrainsAsTheReference) {
  train_and_compare(Json::object());
}
TEST_P(EncoderMethods, TrainsAsTheReferenceInPlainAten) {
  train_and_compare(Json{{"kernels", "portable"}});
}

INSTANTIATE_TEST_SUITE_P(All, EncoderMethods,
                         ::testing::Values("dora", "rslora", "lora-plus", "pissa", "ia3", "bitfit", "layernorm",
                                           "upper-layers", "adapter-houlsby", "adapter-pfeiffer", "adapter-parallel",
                                           "distill"),
                         [](const auto& test) {
                           std::string name = test.param;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

/// Words and places apart, which encoder_golden_test.cpp compares, and the keys' bias: as above.
void expect_whole(testing::NamedValues seen, testing::NamedValues expected, double tolerance = 3e-5) {
  for (testing::NamedValues* values : {&seen, &expected}) {
    for (auto& [name, value] : *values) {
      if (name.ends_with("attn_k.bias")) std::fill(value.numbers.begin(), value.numbers.end(), 0.0f);
    }
  }
  for (const char* table : {"token_embd.weight", "position_embd.weight", "token_types.weight"}) seen.erase(table);
  testing::expect_trained(seen, expected, tolerance);
}

TEST_F(EncoderMethodsTest, TheMovingAverageIsThatOfTorch) {
  const Json& golden = golden_.at("full-ema");
  const testing::MethodRun run = train(golden, "full");
  testing::expect_run(run, golden);
  expect_whole(run.trained, expected_of("full-ema"));
}

TEST_F(EncoderMethodsTest, AHeadForUnitVectorsIsTrainedOnThem) {
  const testing::MethodRun run = train_with_unit_head(golden_.at("full-unit"), "full");
  testing::expect_run(run, golden_.at("full-unit"));
  expect_whole(run.trained, expected_of("full-unit"));
}

TEST_F(EncoderMethodsTest, ContrastAndHeadTogetherAreThoseOfTorch) {
  const testing::MethodRun run = train_with_unit_head(golden_.at("contrastive"), "contrastive");
  testing::expect_run(run, golden_.at("contrastive"));
  // Ten steps of 1e-3, each a quotient: where gradients of keys are near zero, another processor's rounding is 5e-5.
  expect_whole(run.trained, expected_of("contrastive"), 1e-4);
}

// W = residual + scale B A: before the first step PiSSA is the untouched model, as LoRA is whose B is zero.
TEST_F(EncoderMethodsTest, PissaBeginsAsTheUntouchedModel) {
  const Json& golden = golden_.at("pissa");
  const double pissa = train(golden, "pissa").result.at("losses")[0].get<double>();
  const double lora = train(golden, "lora").result.at("losses")[0].get<double>();
  EXPECT_NEAR(pissa, lora, 1e-6);
}

}  // namespace
}  // namespace tailor::tune
