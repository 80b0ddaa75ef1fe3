// Every custom function against numeric differences along random directions, in f32.
#include "tune/llama_functions.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <functional>

#include "tune/llama_test_model.h"

namespace tailor::tune::llama {
namespace {

at::Tensor random_tensor(at::IntArrayRef shape, std::uint64_t stream, double std = 1) {
  at::Tensor t = at::empty(shape, at::kFloat);
  Rng rng(3, stream);
  for (std::int64_t i = 0; i < t.numel(); ++i) t.data_ptr<float>()[i] = static_cast<float>(std * rng.normal());
  return t;
}

double weighted_sum(const at::Tensor& y, const at::Tensor& w) {
  return at::sum(y.detach().to(at::kDouble) * w.to(at::kDouble)).item<double>();
}

using Function = std::function<at::Tensor(const at::Tensor&)>;

/// <gradient, d> against (f(x + h d) - f(x - h d)) / 2h, where f is the output's product with a random w.
void expect_gradient(const at::Tensor& x, const Function& f, const char* what) {
  const at::Tensor leaf = x.clone().requires_grad_();
  const at::Tensor y = f(leaf);
  const at::Tensor w = random_tensor(y.sizes(), 50);
  torch::autograd::backward({y}, {w});
  for (std::uint64_t k = 0; k < 4; ++k) {
    const at::Tensor d = random_tensor(x.sizes(), 60 + k);
    constexpr double kStep = 4e-3;
    const double numeric = (weighted_sum(f(x + d * kStep), w) - weighted_sum(f(x - d * kStep), w)) / (2 * kStep);
    const double analytic = weighted_sum(leaf.grad(), d);
    EXPECT_NEAR(analytic, numeric, 2e-3 * (std::abs(numeric) + 10)) << what << ", direction " << k;
  }
}

class LlamaFunctions : public testing::Test {
 protected:
  LlamaFunctions() : model_(tiny_model(true)) {
    adapters_ = std::make_unique<LoraAdapters>(
        LoraAdapters::attach(model_->config(), {.rank = 4, .alpha = 8, .dropout = 0.25}, 5, parameters_).value());
    parameters_.flatten();
    adapters_->bind(parameters_);
    for (const Parameter& p : parameters_) {
      at::Tensor value = p.value.detach();
      value.copy_(random_tensor(value.sizes(), 70 + static_cast<std::uint64_t>(p.offset), 0.3));
    }
  }
  LinearSpec spec(LinearGroup group, bool dropout = false) {
    LinearSpec s;
    s.weights = &*model_;
    s.layer = 1;
    s.group = group;
    s.lora = adapters_->group(1, group);
    s.training = dropout;
    s.dropout = {.seed = 9, .step = 2, .micro_batch = 1};
    return s;
  }
  /// The gradient that a function adds to the adapters of a group, by numeric differences.
  void expect_adapter_gradient(LinearGroup group, const std::function<at::Tensor()>& f, const char* what) {
    parameters_.zero_grad();
    const at::Tensor y = f();
    const at::Tensor w = random_tensor(y.sizes(), 51);
    torch::autograd::backward({y}, {w});
    const LoraGroup& lora = adapters_->group(1, group);
    std::vector<std::pair<at::Tensor, at::Tensor>> checked = {{lora.a, lora.grad_a}};
    for (const LoraGroup::Member& m : lora.members) checked.emplace_back(m.b, m.grad_b);
    for (auto& [value, grad] : checked) {
      const at::Tensor d = random_tensor(value.sizes(), 52);
      constexpr double kStep = 4e-3;
      value.add_(d, kStep);
      const double above = weighted_sum(f(), w);
      value.sub_(d, 2 * kStep);
      const double below = weighted_sum(f(), w);
      value.add_(d, kStep);
      const double numeric = (above - below) / (2 * kStep);
      EXPECT_NEAR(weighted_sum(grad, d), numeric, 2e-3 * (std::abs(numeric) + 10)) << what;
    }
  }

  OpenModel model_;
  ParameterSet parameters_;
  std::unique_ptr<LoraAdapters> adapters_;
};

TEST_F(LlamaFunctions, NormLinear) {
  const at::Tensor x = random_tensor({7, 32}, 1);
  for (const bool dropout : {false, true}) {
    const Function f = [&](const at::Tensor& t) {
      return norm_linear(t, model_->attention_norm(1), 1e-5, spec(LinearGroup::kQkv, dropout));
    };
    expect_gradient(x, f, "norm_linear");
    expect_adapter_gradient(
        LinearGroup::kQkv, [&] { return f(x); }, "norm_linear, adapters");
  }
}

TEST_F(LlamaFunctions, PartOfAGroupEqualsTheWhole) {
  const at::Tensor x = random_tensor({7, 32}, 1);
  LinearSpec part = spec(LinearGroup::kQkv);
  part.out_begin = 32;
  part.out_end = 64;
  part.lora = part.lora.slice(32, 64);
  const at::Tensor all = norm_linear(x, model_->attention_norm(1), 1e-5, spec(LinearGroup::kQkv));
  const at::Tensor kv = norm_linear(x, model_->attention_norm(1), 1e-5, part);
  EXPECT_LT(at::max(at::abs(all.narrow(1, 32, 32) - kv)).item<float>(), 1e-5);
}

TEST_F(LlamaFunctions, LinearAddAndItsResidual) {
  const at::Tensor x = random_tensor({7, 32}, 1);
  const at::Tensor residual = random_tensor({7, 32}, 2);
  for (const bool dropout : {false, true}) {
    const LinearSpec s = spec(LinearGroup::kOutput, dropout);
    expect_gradient(
        x, [&](const at::Tensor& t) { return linear_add(t, residual, s); }, "linear_add");
    expect_gradient(
        residual, [&](const at::Tensor& t) { return linear_add(x, t, s); }, "residual");
    expect_adapter_gradient(
        LinearGroup::kOutput, [&] { return linear_add(x, residual, s); }, "linear_add, adapters");
  }
}

TEST_F(LlamaFunctions, SwigluLinearAdd) {
  const at::Tensor x = random_tensor({7, 128}, 1);
  const at::Tensor residual = random_tensor({7, 32}, 2);
  const LinearSpec s = spec(LinearGroup::kDown);
  expect_gradient(
      x, [&](const at::Tensor& t) { return swiglu_linear_add(t, residual, s); }, "swiglu_linear_add");
  expect_adapter_gradient(
      LinearGroup::kDown, [&] { return swiglu_linear_add(x, residual, s); }, "swiglu, adapters");
}

/// Rows that share a beginning of five tokens; two of them share seven.
std::shared_ptr<AttentionPlan> plan_of(LlamaWeights& weights, std::int64_t length) {
  std::vector<std::vector<std::int32_t>> rows;
  for (std::int32_t r = 0; r < 3; ++r) {
    std::vector<std::int32_t> row = {1, 2, 3, 4, 5};
    if (r > 0) row.insert(row.end(), {6, 7});
    for (std::int64_t i = 0; i < length + 3 * r; ++i) row.push_back(static_cast<std::int32_t>(10 + 40 * r + i % 40));
    rows.push_back(row);
  }
  std::vector<SequenceView> views;
  std::vector<std::vector<std::uint8_t>> masks;
  for (const auto& row : rows) {
    masks.emplace_back(row.size(), std::uint8_t{0});
    masks.back()[row.size() - 1] = masks.back()[row.size() - 3] = 1;
  }
  for (std::size_t r = 0; r < rows.size(); ++r) views.push_back({rows[r], masks[r]});
  auto plan = std::make_shared<AttentionPlan>();
  auto tree = std::make_shared<PackedTree>(pack_tree(views, Sharing::kTree));
  const LlamaConfig& c = weights.config();
  plan->shape = {c.heads, c.kv_heads, c.head_dim, 0.35f};
  plan->rotary = c.rotary;
  plan->rope_table = weights.rope_table(tree->max_path);
  plan->all = all_queries(*tree);
  plan->labels = label_queries(*tree);
  plan->tree = std::move(tree);
  return plan;
}

TEST_F(LlamaFunctions, RopeAttention) {
  for (const std::int64_t length : {4, 70}) {  // 70: more than one block of queries
    const auto plan = plan_of(*model_, length);
    expect_gradient(
        random_tensor({plan->tree->size(), 64}, 1), [&](const at::Tensor& t) { return rope_attention(t, plan); },
        "rope_attention");
  }
}

TEST_F(LlamaFunctions, RopeAttentionAtLabelsEqualsTheRowsOfTheWhole) {
  const auto plan = plan_of(*model_, 6);
  const at::Tensor qkv = random_tensor({plan->tree->size(), 64}, 1);
  const at::Tensor nodes = at::tensor(plan->tree->label_nodes, at::kLong);
  const at::Tensor q = qkv.narrow(1, 0, 32).index_select(0, nodes).contiguous();
  const at::Tensor kv = qkv.narrow(1, 32, 32).contiguous();
  const at::Tensor whole = rope_attention(qkv, plan).index_select(0, nodes);
  EXPECT_LT(at::max(at::abs(whole - rope_attention_at_labels(q, kv, plan))).item<float>(), 1e-6);
  expect_gradient(
      q, [&](const at::Tensor& t) { return rope_attention_at_labels(t, kv, plan); }, "q at labels");
  expect_gradient(
      kv, [&](const at::Tensor& t) { return rope_attention_at_labels(q, t, plan); }, "kv at labels");
}

TEST_F(LlamaFunctions, DropoutKeepsTheMeanAndRepeatsItself) {
  LinearSpec s = spec(LinearGroup::kOutput, true);
  const at::Tensor x = at::ones({64, 32}, at::kFloat);
  const at::Tensor residual = at::zeros({64, 32}, at::kFloat);
  const at::Tensor once = linear_add(x, residual, s);
  EXPECT_TRUE(at::equal(once, linear_add(x, residual, s)));
  s.dropout.step = 3;
  EXPECT_FALSE(at::equal(once, linear_add(x, residual, s)));
  // The mean over many rows comes near what no dropout gives.
  const at::Tensor without = linear_add(x, residual, spec(LinearGroup::kOutput, false));
  const at::Tensor wide = at::ones({4096, 32}, at::kFloat);
  const at::Tensor mean = linear_add(wide, at::zeros({4096, 32}, at::kFloat), s).mean(0);
  EXPECT_LT(at::max(at::abs(mean - without[0])).item<float>(), 0.1);
}

}  // namespace
}  // namespace tailor::tune::llama
