// Every custom function against numeric differences along random directions, in f32.
#include "tune/decoder_functions.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <functional>

#include "tune/decoder_test_model.h"

namespace tailor::tune::decoder {
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

class DecoderFunctions : public testing::Test {
 protected:
  DecoderFunctions() : model_(tiny_model(true)) {
    adapters_ = std::make_unique<LoraAdapters>(
        LoraAdapters::attach(*model_, {.rank = 4, .alpha = 8, .dropout = 0.25}, 5, parameters_).value());
    parameters_.flatten();
    adapters_->bind(parameters_);
    for (const Parameter& p : parameters_) {
      at::Tensor value = p.value.detach();
      value.copy_(random_tensor(value.sizes(), 70 + static_cast<std::uint64_t>(p.offset), 0.3));
    }
  }
  NormSpec norm_of(std::int64_t layer) { return {model_->norms(layer).attention, NormKind::kRms, 1e-5}; }
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

TEST_F(DecoderFunctions, NormLinear) {
  const at::Tensor x = random_tensor({7, 32}, 1);
  for (const bool dropout : {false, true}) {
    const Function f = [&](const at::Tensor& t) {
      return norm_linear(t, norm_of(1), spec(LinearGroup::kQkv, dropout));
    };
    expect_gradient(x, f, "norm_linear");
    expect_adapter_gradient(
        LinearGroup::kQkv, [&] { return f(x); }, "norm_linear, adapters");
  }
}

TEST_F(DecoderFunctions, PartOfAGroupEqualsTheWhole) {
  const at::Tensor x = random_tensor({7, 32}, 1);
  LinearSpec part = spec(LinearGroup::kQkv);
  part.out_begin = 32;
  part.out_end = 64;
  part.lora = part.lora.slice(32, 64);
  const at::Tensor all = norm_linear(x, norm_of(1), spec(LinearGroup::kQkv));
  const at::Tensor kv = norm_linear(x, norm_of(1), part);
  EXPECT_LT(at::max(at::abs(all.narrow(1, 32, 32) - kv)).item<float>(), 1e-5);
}

TEST_F(DecoderFunctions, LinearAddAndItsResidual) {
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

TEST_F(DecoderFunctions, SwigluLinearAdd) {
  const at::Tensor x = random_tensor({7, 128}, 1);
  const at::Tensor residual = random_tensor({7, 32}, 2);
  const LinearSpec s = spec(LinearGroup::kDown);
  expect_gradient(
      x, [&](const at::Tensor& t) { return activated_linear_add(t, Activation::kSwiglu, residual, s); },
      "activated_linear_add");
  expect_adapter_gradient(
      LinearGroup::kDown, [&] { return activated_linear_add(x, Activation::kSwiglu, residual, s); },
      "swiglu, adapters");
}

/// Rows that share a beginning of five tokens; two of them share seven.
std::shared_ptr<AttentionPlan> plan_of(DecoderWeights& weights, std::int64_t length, bool shaped = false) {
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
  const DecoderConfig& c = weights.config();
  plan->shape = {c.heads, c.kv_heads, c.head_dim, 0.35f};
  plan->q_rope = {c.heads, c.head_dim, c.rotary, shaped};
  plan->k_rope = {c.kv_heads, c.head_dim, c.rotary, shaped};
  plan->rope_table = weights.rope_table(tree->max_path, false);
  if (shaped) {
    plan->slopes = {0.5f, 0.25f, 0.125f, 0.0625f};
    plan->shape.slopes = plan->slopes.data();
    plan->shape.softcap = 2;
    plan->shape.window = 9;
  }
  plan->all = all_queries(*tree);
  plan->labels = label_queries(*tree);
  plan->tree = std::move(tree);
  return plan;
}

TEST_F(DecoderFunctions, Attention) {
  for (const bool shaped : {false, true}) {
    for (const std::int64_t length : {4, 70}) {  // 70: more than one block of queries
      const auto plan = plan_of(*model_, length, shaped);
      expect_gradient(
          random_tensor({plan->tree->size(), 64}, 1), [&](const at::Tensor& t) { return attention(t, plan); },
          shaped ? "attention with a window, a cap and slopes" : "attention");
    }
  }
}

TEST_F(DecoderFunctions, ActivationsAndNorms) {
  for (const Activation a : {Activation::kSwiglu, Activation::kGeglu, Activation::kGelu, Activation::kGeluExact})
    expect_gradient(
        random_tensor({5, 38}, 1), [&](const at::Tensor& t) { return activated(t, a); }, "activation");
  Norm weights;
  weights.gamma.value = random_tensor({32}, 2);
  for (const NormKind kind : {NormKind::kRms, NormKind::kLayer}) {
    if (kind == NormKind::kLayer) weights.beta.value = random_tensor({32}, 3);
    expect_gradient(
        random_tensor({5, 32}, 1),
        [&](const at::Tensor& t) {
          return norm(t, {weights, kind, 1e-5});
        },
        "norm");
  }
  const DecoderConfig& c = model_->config();
  weights.gamma.value = random_tensor({c.head_dim}, 2);
  expect_gradient(
      random_tensor({5, 64}, 1), [&](const at::Tensor& t) { return head_norms(t, weights, weights, 1e-5, c); },
      "head_norms");
}

TEST_F(DecoderFunctions, AttentionAtLabelsEqualsTheRowsOfTheWhole) {
  const auto plan = plan_of(*model_, 6);
  const at::Tensor qkv = random_tensor({plan->tree->size(), 64}, 1);
  const at::Tensor nodes = at::tensor(plan->tree->label_nodes, at::kLong);
  const at::Tensor q = qkv.narrow(1, 0, 32).index_select(0, nodes).contiguous();
  const at::Tensor kv = qkv.narrow(1, 32, 32).contiguous();
  const at::Tensor whole = attention(qkv, plan).index_select(0, nodes);
  EXPECT_LT(at::max(at::abs(whole - attention_at_labels(q, kv, plan))).item<float>(), 1e-6);
  expect_gradient(
      q, [&](const at::Tensor& t) { return attention_at_labels(t, kv, plan); }, "q at labels");
  expect_gradient(
      kv, [&](const at::Tensor& t) { return attention_at_labels(q, t, plan); }, "kv at labels");
}

TEST_F(DecoderFunctions, DropoutKeepsTheMeanAndRepeatsItself) {
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
}  // namespace tailor::tune::decoder
