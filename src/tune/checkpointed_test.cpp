// Activation checkpointing changes no bit of losses and gradients, on every family and by every kind of method.

#include "tune/checkpointed.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "tune/decoder_family_model.h"
#include "tune/encoder_family_model.h"
#include "tune/job.h"
#include "tune/methods.h"
#include "tune/slot.h"

namespace tailor::tune {
namespace {

TEST(Checkpointed, ALayerIsComputedTwiceAndItsGradientAddedOnce) {
  const at::Tensor w = at::full({3}, 2.0f).requires_grad_(), x = at::arange(3, at::kFloat).requires_grad_();
  int calls = 0;
  bool with_gradients = false;
  const at::Tensor y = checkpointed(x, [&](const at::Tensor& in) {
    ++calls;
    with_gradients = at::GradMode::is_enabled();
    return in * in * w;
  });
  EXPECT_EQ(calls, 1);
  EXPECT_FALSE(with_gradients);
  y.sum().backward();
  EXPECT_EQ(calls, 2);
  EXPECT_TRUE(with_gradients);
  EXPECT_TRUE(at::equal(w.grad(), x * x));
  EXPECT_TRUE(at::equal(x.grad(), 2 * x * w));
}

TEST(Checkpointed, AnInputWithoutAGradientIsNoHindrance) {
  const at::Tensor w = at::full({3}, 2.0f).requires_grad_();
  const at::Tensor x = at::arange(3, at::kFloat);
  checkpointed(x, [&](const at::Tensor& in) { return in * w; }).sum().backward();
  EXPECT_TRUE(at::equal(w.grad(), x));
  EXPECT_FALSE(x.grad().defined());
}

/// Losses and the gradient of two passes with dropout, one added to the other, and the losses once more without.
struct Passed {
  std::vector<double> losses;
  at::Tensor gradient;
};
Passed pass(TrainableModel& model, const std::vector<std::vector<std::int64_t>>& parts) {
  ParameterSet& parameters = model.parameters();
  Rng rng(9);
  float* values = parameters.flat_values().data_ptr<float>();
  for (std::int64_t i = 0; i < parameters.element_count(); ++i) values[i] += static_cast<float>(0.05 * rng.normal());
  model.parameters_changed(1);
  Passed out;
  StepContext context{.denominator = 7, .seed = 3, .step = 5, .micro_batch = 0};
  for (const auto& rows : parts) {
    out.losses.push_back(model.forward_backward(rows, context).loss_sum);
    ++context.micro_batch;
  }
  out.gradient = parameters.flat_grad().clone();
  return out;
}

Job job_of(const Method& method, Task task, const std::filesystem::path& out) {
  Job job;
  job.method = method.name;
  job.task = task;
  job.out = out;
  job.seed = 4;
  method.set_defaults(job.settings, task);
  job.settings.lora.r = 2;
  job.settings.lora.dropout = task == Task::kCausalLmLabels ? 0 : 0.3;
  job.settings.hidden_dropout = job.settings.dropout = 0.2;
  job.settings.adapter.size = 4;
  job.settings.soft_prompt.tokens = 3;
  job.settings.soft_prompt.hidden = 6;
  job.settings.upper_layers = 1;
  job.settings.micro_batch_tokens = 64;
  return job;
}

void expect_the_same(const Method& method, const Job& job, ModelBuilder build, const BaseWeights& base,
                     const TokenFile& rows, const std::vector<std::vector<std::int64_t>>& parts) {
  Job again = job;
  again.settings.activation_checkpointing = true;
  std::unique_ptr<TrainableModel> plain, sparing;
  try {
    plain = build({job, base, rows, {}});
    sparing = build({again, base, rows, {}});
  } catch (const Exception& error) {
    EXPECT_EQ(method.name, "bitfit") << error.what();  // models without biases
    return;
  }
  const Passed expected = pass(*plain, parts), seen = pass(*sparing, parts);
  EXPECT_EQ(seen.losses, expected.losses);
  EXPECT_GT(at::max(at::abs(expected.gradient)).item<float>(), 0);
  EXPECT_TRUE(at::equal(seen.gradient, expected.gradient))
      << at::max(at::abs(seen.gradient - expected.gradient)).item<float>();
}

class CheckpointedDecoders : public ::testing::TestWithParam<const char*> {};

TEST_P(CheckpointedDecoders, LossesAndGradientsAreTheSame) {
  const decoder::TinyFamily t = decoder::tiny_family(GetParam());
  const TemporaryDirectory dir;
  decoder::write_gguf(t.model, dir.path() / "m.gguf");
  const BaseWeights base = BaseWeights::open(dir.path() / "m.gguf").value();
  const auto tokens = t.golden["tokens"].get<std::vector<std::int32_t>>();
  TokenFile rows;
  rows.vocab_size = static_cast<std::int32_t>(t.model.vocab);
  for (std::int32_t r = 0; r < 4; ++r) {
    std::vector<std::int32_t> row(tokens.begin(), tokens.end() - 2 * (r % 2));
    row[row.size() - 2] = 3 + r;
    std::vector<std::uint8_t> mask(row.size(), 0);
    std::fill(mask.end() - 3, mask.end(), std::uint8_t{1});
    rows.add_row(row, -1, TokenPart::kTrain, r, mask);
  }
  for (const Method& method : methods()) {
    if (method.decoder == nullptr || method.name == "distill") continue;
    SCOPED_TRACE(method.name);
    expect_the_same(method, job_of(method, Task::kCausalLm, dir.path()), method.decoder, base, rows, {{0, 1}, {2, 3}});
  }
}

INSTANTIATE_TEST_SUITE_P(All, CheckpointedDecoders, ::testing::ValuesIn(decoder::kTinyFamilies),
                         [](const auto& test) { return std::string(test.param); });

class CheckpointedEncoders : public ::testing::TestWithParam<const char*> {};

TEST_P(CheckpointedEncoders, LossesAndGradientsAreTheSame) {
  const TemporaryDirectory dir;
  testing::write_family_gguf(GetParam(), dir.path() / "m.gguf");
  const BaseWeights base = BaseWeights::open(dir.path() / "m.gguf").value();
  TokenFile rows;
  rows.n_labels = 3;
  rows.vocab_size = testing::kFamilyWords;
  Rng rng(2);
  for (std::int32_t r = 0; r < 8; ++r) {
    std::vector<std::int32_t> row;
    for (std::int32_t i = 0; i < 5 + r; ++i) row.push_back(static_cast<std::int32_t>(rng.below(90)));
    rows.add_row(row, r % 3, TokenPart::kTrain, r);
  }
  for (const Method& method : methods()) {
    if (method.encoder == nullptr || method.name == "distill" || method.name == "head" || method.name == "features")
      continue;
    SCOPED_TRACE(method.name);
    Job job = job_of(method, Task::kSequenceClassification, dir.path());
    job.settings.hard_negatives = 0;
    expect_the_same(method, job, method.encoder, base, rows, {{0, 1, 2, 3}, {4, 5, 6, 7}});
  }
}

INSTANTIATE_TEST_SUITE_P(All, CheckpointedEncoders, ::testing::Values("bert", "distilbert", "roberta", "modernbert"),
                         [](const auto& test) { return std::string(test.param); });

}  // namespace
}  // namespace tailor::tune
