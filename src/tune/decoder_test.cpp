#include "tune/decoder.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "tune/decoder_loss.h"
#include "tune/decoder_test_model.h"
#include "tune/kernels.h"

namespace tailor::tune::decoder {
namespace {

std::shared_ptr<const PackedTree> packed(const TestRows& rows, Sharing sharing = Sharing::kTree) {
  return std::make_shared<PackedTree>(pack_tree(rows.views(), sharing));
}

/// A row whose last token is "learnt", so that the logits before it are asked for.
TestRows asking(std::vector<std::int32_t> tokens) {
  TestRows rows;
  tokens.push_back(0);
  rows.masks.emplace_back(tokens.size(), std::uint8_t{0});
  rows.masks.back().back() = 1;
  rows.tokens.push_back(std::move(tokens));
  return rows;
}

double largest_difference(const at::Tensor& a, const Json& b) {
  const auto values = b.get<std::vector<double>>();
  EXPECT_EQ(static_cast<std::size_t>(a.numel()), values.size());
  const at::Tensor flat = a.contiguous();
  double worst = 0;
  for (std::int64_t i = 0; i < flat.numel(); ++i) {
    worst = std::max(worst, std::abs(flat.data_ptr<float>()[i] - values[static_cast<std::size_t>(i)]));
  }
  return worst;
}

/// AdamW as PyTorch steps it, decay decoupled.
class TestAdamW {
 public:
  TestAdamW(ParameterSet& p, double rate, double decay) : p_(p), rate_(rate), decay_(decay) {
    m_ = at::zeros_like(p.flat_values());
    v_ = at::zeros_like(p.flat_values());
  }
  void step() {
    ++t_;
    at::Tensor w = p_.flat_values();
    const at::Tensor g = p_.flat_grad();
    w.mul_(1 - rate_ * decay_);
    m_.mul_(0.9).add_(g, 0.1);
    v_.mul_(0.999).addcmul_(g, g, 0.001);
    const at::Tensor denominator = (v_ / (1 - std::pow(0.999, t_))).sqrt_().add_(1e-8);
    w.addcdiv_(m_, denominator, -rate_ / (1 - std::pow(0.9, t_)));
    p_.zero_grad();
  }

 private:
  ParameterSet& p_;
  double rate_, decay_;
  int t_ = 0;
  at::Tensor m_, v_;
};

struct Trained {
  explicit Trained(DecoderWeights& w, LoraConfig config = {.rank = 4, .alpha = 8}, std::uint64_t seed = 5)
      : adapters(LoraAdapters::attach(w, config, seed, parameters).value()) {
    parameters.flatten();
    adapters.bind(parameters);
  }
  /// B from the golden script's streams.
  void random_b(const DecoderConfig& c) {
    for (std::int64_t layer = 0; layer < c.layers; ++layer) {
      for (std::size_t m = 0; m < c.modules.size(); ++m) {
        const std::string name = lora_name(c, layer, m, "b");
        if (!parameters.contains(name)) continue;
        const c10::NoGradGuard no_grad;
        at::Tensor b = parameters.at(name).value;
        Rng rng(5, 9000 + 7 * static_cast<std::uint64_t>(layer) + m);
        for (std::int64_t i = 0; i < b.numel(); ++i) b.data_ptr<float>()[i] = static_cast<float>(0.1 * rng.normal());
      }
    }
  }
  ParameterSet parameters;
  LoraAdapters adapters;
};

double mean_step(Decoder& decoder, const TestRows& rows, Sharing sharing = Sharing::kTree,
                 const DropoutKey* dropout = nullptr) {
  const auto tree = packed(rows, sharing);
  const auto n = static_cast<double>(tree->targets.size());
  const std::vector<float> weights(tree->targets.size(), static_cast<float>(1 / n));
  double sum = 0;
  for (const float l : decoder.losses_and_gradients(tree, weights, dropout)) sum += l;
  return sum / n;
}

TEST(Decoder, LogitsOfTinyModelEqualTransformers) {
  const Json reference = golden("decoder_tiny.json");
  for (const bool tied : {false, true}) {
    OpenModel model(tiny_model(tied));
    EXPECT_EQ(model->config().tied, tied);
    Decoder decoder(*model, nullptr);
    for (std::size_t i = 0; i < 3; ++i) {
      const auto tree = packed(asking(reference["rows"][i]["tokens"].get<std::vector<std::int32_t>>()));
      EXPECT_LT(largest_difference(decoder.logits(tree), reference[tied ? "logits_tied" : "logits"][i]), 1e-5);
    }
  }
}

TEST(Decoder, LogitsOfSmolLm2EqualTransformersOnTheSameWeights) {
  const std::filesystem::path file =
      environment_path("TAILOR_MODELS_DIR") / "smollm2-135m-instruct/SmolLM2-135M-Instruct.Q4_1.gguf";
  ASSERT_TRUE(std::filesystem::exists(file)) << file;
  OpenModel model(file, WeightStorage::kFloat);
  EXPECT_EQ(model->config().layers, 30);
  EXPECT_EQ(model->config().head_dim, 64);
  const Json reference = golden("decoder_smollm2.json");
  Decoder decoder(*model, nullptr);
  for (std::size_t p = 0; p < reference["prompts"].size(); ++p) {
    const Json& answer = reference["answers"][p];
    const at::Tensor logits = decoder.logits(packed(asking(reference["prompts"][p].get<std::vector<std::int32_t>>())));
    for (std::size_t i = 0; i < answer["ids"].size(); ++i) {
      EXPECT_NEAR(logits.data_ptr<float>()[answer["ids"][i].get<std::int64_t>()], answer["logits"][i].get<double>(),
                  1e-3);
    }
    EXPECT_NEAR(at::logsumexp(logits.to(at::kDouble), {1}).item<double>(), answer["logsumexp"].get<double>(), 1e-3);
  }
}

TEST(Decoder, FirstGradientsEqualPeft) {
  const Json reference = golden("decoder_tiny.json");
  for (const Kernels kernels : {Kernels::kNative, Kernels::kPortable}) {
    const KernelsGuard formulation(kernels);
    OpenModel model(tiny_model(false));
    Trained t(*model);
    t.random_b(model->config());
    Decoder decoder(*model, &t.adapters);
    EXPECT_NEAR(mean_step(decoder, test_rows(reference["rows"], 0, 4)), reference["gradients"]["loss"].get<double>(),
                1e-5);
    double worst = 0;
    for (const auto& [name, values] : reference["gradients"]["values"].items()) {
      worst = std::max(worst, largest_difference(t.parameters.at(name).grad, values));
    }
    EXPECT_LT(worst, 1e-5);
  }
}

TEST(Decoder, LossesOfTwentyStepsEqualPeft) {
  const Json reference = golden("decoder_tiny.json");
  for (const auto& [storage, kernels] : {std::pair{WeightStorage::kFloat, Kernels::kNative},
                                         {WeightStorage::kBlocks, Kernels::kNative},
                                         {WeightStorage::kFloat, Kernels::kPortable},
                                         {WeightStorage::kBlocks, Kernels::kPortable}}) {
    const KernelsGuard formulation(kernels);
    OpenModel model(tiny_model(false), storage);
    Trained t(*model);
    Decoder decoder(*model, &t.adapters);
    TestAdamW optimizer(t.parameters, 1e-2, 0.01);
    for (std::size_t step = 0; step < 20; ++step) {
      const std::size_t at = 4 * (step % 3);
      EXPECT_NEAR(mean_step(decoder, test_rows(reference["rows"], at, at + 4)), reference["losses"][step].get<double>(),
                  1e-4)
          << "step " << step;
      optimizer.step();
    }
  }
}

TEST(Decoder, TreeOfRowsEqualsSeparateRows) {
  const Json reference = golden("decoder_tiny.json");
  const TestRows rows = test_rows(reference["rows"], 0, 12);
  OpenModel model(tiny_model(false));
  Trained t(*model);
  t.random_b(model->config());
  Decoder decoder(*model, &t.adapters);
  const double shared = mean_step(decoder, rows, Sharing::kTree);
  const at::Tensor shared_gradient = t.parameters.flat_grad().clone();
  t.parameters.zero_grad();
  const double packed_loss = mean_step(decoder, rows, Sharing::kNone);
  EXPECT_NEAR(shared, packed_loss, 1e-6);
  EXPECT_LT(at::max(at::abs(shared_gradient - t.parameters.flat_grad())).item<float>(), 1e-6);

  // One row at a time, with the same denominator, adds up to the same.
  t.parameters.zero_grad();
  const std::size_t n = packed(rows)->targets.size();
  double separate = 0;
  for (std::size_t r = 0; r < rows.tokens.size(); ++r) {
    const TestRows one{{rows.tokens[r]}, {rows.masks[r]}};
    const auto tree = packed(one);
    const std::vector<float> weights(tree->targets.size(), 1.0f / static_cast<float>(n));
    for (const float l : decoder.losses_and_gradients(tree, weights, nullptr)) separate += l;
  }
  EXPECT_NEAR(separate / static_cast<double>(n), shared, 1e-6);
  EXPECT_LT(at::max(at::abs(shared_gradient - t.parameters.flat_grad())).item<float>(), 1e-6);
}

TEST(Decoder, LossesWithoutGradientsAreTheSame) {
  const TestRows rows = test_rows(golden("decoder_tiny.json")["rows"], 0, 4);
  OpenModel model(tiny_model(false), WeightStorage::kBlocks);
  Decoder decoder(*model, nullptr);
  const auto tree = packed(rows);
  const auto losses = decoder.losses(tree);
  ASSERT_EQ(losses.size(), tree->targets.size());
  const at::Tensor logits = decoder.logits(tree).to(at::kDouble);
  for (std::size_t i = 0; i < losses.size(); ++i) {
    const at::Tensor row = logits[tree->targets[i].node];
    EXPECT_NEAR(losses[i], (at::logsumexp(row, {0}) - row[tree->targets[i].token]).item<double>(), 1e-5);
  }
}

/// Against the logits themselves. Targets are the tokens of the rows, and then the model's own likeliest ones.
TEST(Decoder, CountsTheTokensThanWhichNoneIsLikelier) {
  TestRows rows;
  Rng rng(5);
  for (int r = 0; r < 3; ++r) {
    rows.masks.emplace_back(40, std::uint8_t{1});
    rows.tokens.emplace_back();
    for (int i = 0; i < 40; ++i) rows.tokens.back().push_back(static_cast<std::int32_t>(rng.below(128)));
  }
  for (const Kernels kernels : {Kernels::kNative, Kernels::kPortable}) {
    const KernelsGuard formulation(kernels);
    OpenModel model(tiny_model(false));
    Trained t(*model);
    t.random_b(model->config());
    Decoder decoder(*model, &t.adapters);
    auto tree = std::make_shared<PackedTree>(*packed(rows));
    ASSERT_GT(tree->label_nodes.size(), static_cast<std::size_t>(kLabelSlice)) << "more than one slice of nodes";
    const at::Tensor best = at::argmax(decoder.logits(tree), 1);
    const auto best_at = [&](const LabelTarget& target) { return best[target.node].item<std::int64_t>(); };
    for (std::size_t i = 0; i < tree->targets.size(); i += 3)
      tree->targets[i].token = static_cast<std::int32_t>(best_at(tree->targets[i]));
    std::vector<std::uint8_t> wanted, seen, seen_in_training;
    for (const LabelTarget& target : tree->targets) wanted.push_back(best_at(target) == target.token ? 1 : 0);
    const std::vector<float> weights(tree->targets.size(), 1.0f);
    decoder.losses(tree, {}, &seen);
    decoder.losses_and_gradients(tree, weights, nullptr, {}, &seen_in_training);
    EXPECT_EQ(seen, wanted);
    EXPECT_EQ(seen_in_training, wanted);
    EXPECT_LT(std::count(wanted.begin(), wanted.end(), 1), static_cast<std::ptrdiff_t>(wanted.size()));
  }
}

TEST(Decoder, DropoutDependsOnItsKeyAlone) {
  const TestRows rows = test_rows(golden("decoder_tiny.json")["rows"], 0, 4);
  OpenModel model(tiny_model(false));
  Trained t(*model, {.rank = 4, .alpha = 8, .dropout = 0.5});
  t.random_b(model->config());
  Decoder decoder(*model, &t.adapters);
  const DropoutKey key{1, 2, 3};
  const DropoutKey other{1, 3, 3};
  const double first = mean_step(decoder, rows, Sharing::kTree, &key);
  EXPECT_EQ(first, mean_step(decoder, rows, Sharing::kTree, &key));
  EXPECT_NE(first, mean_step(decoder, rows, Sharing::kTree, &other));
  EXPECT_NE(first, mean_step(decoder, rows, Sharing::kTree, nullptr));
}

TEST(Decoder, DropoutDropsTheSameInPlainAten) {
  const TestRows rows = test_rows(golden("decoder_tiny.json")["rows"], 0, 4);
  std::vector<double> losses;
  std::vector<at::Tensor> gradients;
  for (const Kernels kernels : {Kernels::kNative, Kernels::kPortable}) {
    const KernelsGuard formulation(kernels);
    OpenModel model(tiny_model(false));
    Trained t(*model, {.rank = 4, .alpha = 8, .dropout = 0.3});
    t.random_b(model->config());
    Decoder decoder(*model, &t.adapters);
    const DropoutKey key{1, 2, 3};
    losses.push_back(mean_step(decoder, rows, Sharing::kTree, &key));
    gradients.push_back(t.parameters.flat_grad().clone());
  }
  EXPECT_NEAR(losses[0], losses[1], 1e-6);
  EXPECT_LT(at::max(at::abs(gradients[0] - gradients[1])).item<float>(), 1e-6);
}

/// Rounded to bf16 in memory is as if the file held the rounded numbers.
TEST(Decoder, MatricesKeptAsBf16AreTheRoundedOnes) {
  const TestRows rows = test_rows(golden("decoder_tiny.json")["rows"], 0, 4);
  for (const bool tied : {true, false}) {
    TestModel rounded = tiny_model(tied);
    for (TestTensor& t : rounded.tensors) {
      if (t.shape.size() < 2) continue;
      const at::Tensor values = at::tensor(t.values, at::kFloat).to(at::kBFloat16).to(at::kFloat);
      t.values.assign(values.data_ptr<float>(), values.data_ptr<float>() + values.numel());
    }
    for (const Kernels kernels : {Kernels::kNative, Kernels::kPortable}) {
      const KernelsGuard formulation(kernels);
      std::vector<double> losses;
      std::vector<at::Tensor> gradients;
      OpenModel kept(tiny_model(tied), WeightStorage::kBf16), whole(rounded), untouched(tiny_model(tied));
      for (OpenModel* model : {&kept, &whole, &untouched}) {
        Trained t(**model, {.rank = 4, .alpha = 8, .magnitudes = true});
        t.random_b((*model)->config());
        t.adapters.refresh(**model);
        Decoder decoder(**model, &t.adapters);
        losses.push_back(mean_step(decoder, rows));
        gradients.push_back(t.parameters.flat_grad().clone());
      }
      EXPECT_NEAR(losses[0], losses[1], 1e-6);
      EXPECT_GT(std::abs(losses[0] - losses[2]), 1e-5);
      EXPECT_LT(at::max(at::abs(gradients[0] - gradients[1])).item<float>(), 1e-5);
    }
    OpenModel kept(tiny_model(tied), WeightStorage::kBf16);
    const auto name = block_name(0, "ffn_up");
    EXPECT_EQ(kept->matrix(0, 4).row_bytes, 2U * 32U);
    for (const TestTensor& t : rounded.tensors) {
      if (t.name != name) continue;
      EXPECT_TRUE(at::equal(kept->as_kept(name).flatten(), at::tensor(t.values, at::kFloat)));
    }
  }
}

TEST(Decoder, QuantisedBaseGivesTheSameEitherWayItIsKept) {
  const TestRows rows = test_rows(golden("decoder_tiny.json")["rows"], 0, 4);
  for (const ggml_type type : {GGML_TYPE_Q8_0, GGML_TYPE_Q4_1, GGML_TYPE_F16}) {
    std::vector<double> losses;
    std::vector<at::Tensor> gradients;
    for (const WeightStorage storage : {WeightStorage::kFloat, WeightStorage::kBlocks}) {
      OpenModel model(tiny_model(true), storage, type);
      Trained t(*model);
      t.random_b(model->config());
      Decoder decoder(*model, &t.adapters);
      losses.push_back(mean_step(decoder, rows));
      gradients.push_back(t.parameters.flat_grad().clone());
    }
    EXPECT_NEAR(losses[0], losses[1], 1e-6);
    EXPECT_LT(at::max(at::abs(gradients[0] - gradients[1])).item<float>(), 1e-6);
  }
}

TEST(Decoder, TokenBeyondTheVocabularyIsNamed) {
  OpenModel model(tiny_model(true));
  Decoder decoder(*model, nullptr);
  EXPECT_THROW(decoder.losses(packed(asking({1, 128}))), Exception);
}

}  // namespace
}  // namespace tailor::tune::decoder
