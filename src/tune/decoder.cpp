#include "tune/decoder.h"

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <cmath>

#include "tune/checkpointed.h"
#include "tune/decoder_pass.h"

namespace tailor::tune::decoder {
namespace {

/// Rows `soft.nodes` of x get `values`[soft.ids] from `column` on.
at::Tensor with_rows(const at::Tensor& x, const SoftRows& soft, const at::Tensor& values, std::int64_t column) {
  at::Tensor rows = values.index_select(0, soft.ids);
  if (column > 0) rows = at::cat({x.narrow(1, 0, column).index_select(0, soft.nodes), rows}, 1);
  return x.index_copy(0, soft.nodes, rows);
}

/// Slopes of the heads, as in Press et al.'s code: those beyond a power of two lie between the others.
std::vector<float> alibi_slopes(const DecoderConfig& c) {
  const auto power = static_cast<std::int64_t>(std::pow(2, std::floor(std::log2(static_cast<double>(c.heads)))));
  const double first = std::pow(2, -c.alibi_bias / static_cast<double>(power));
  const double between = std::pow(2, -c.alibi_bias / 2 / static_cast<double>(power));
  std::vector<float> slopes;
  for (std::int64_t h = 0; h < c.heads; ++h) {
    slopes.push_back(static_cast<float>(h < power ? std::pow(first, static_cast<double>(h + 1))
                                                  : std::pow(between, static_cast<double>(2 * (h - power) + 1))));
  }
  return slopes;
}

}  // namespace

SoftRows::SoftRows(const PackedTree& tree, std::int64_t vocabulary, const at::Device& device) {
  std::vector<std::int64_t> at_node, which;
  for (std::size_t i = 0; i < tree.tokens.size(); ++i) {
    if (tree.tokens[i] < vocabulary) continue;
    at_node.push_back(static_cast<std::int64_t>(i));
    which.push_back(tree.tokens[i] - vocabulary);
  }
  if (at_node.empty()) return;
  nodes = at::tensor(at_node, at::kLong).to(device);
  ids = at::tensor(which, at::kLong).to(device);
}

LinearSpec Decoder::spec(std::int64_t layer, LinearGroup group, const DropoutKey* dropout) const {
  LinearSpec s;
  s.weights = &weights_;
  s.layer = layer;
  s.group = group;
  if (lora_ != nullptr) s.lora = lora_->group(layer, group);
  s.training = dropout != nullptr;
  if (dropout != nullptr) s.dropout = *dropout;
  return s;
}

std::vector<at::Tensor> Decoder::keys_values(std::span<const std::int32_t> tokens) {
  const c10::NoGradGuard no_grad;
  // The last token of a row is only ever an answer: one more is put behind it.
  std::vector<std::int32_t> longer(tokens.begin(), tokens.end());
  longer.push_back(tokens.back());
  const SequenceView view{longer, {}};
  const auto tree = std::make_shared<PackedTree>(pack_tree({&view, 1}, Sharing::kNone));
  std::vector<at::Tensor> seen;
  hidden_at_labels(tree, nullptr, {}, &seen);
  return seen;
}

AttentionShape Decoder::attention_shape(bool local, const std::vector<float>& slopes) const {
  const DecoderConfig& c = weights_.config();
  return {.heads = c.heads,
          .kv_heads = c.kv_heads,
          .head_dim = c.head_dim,
          .scale = static_cast<float>(c.attention_scale),
          .softcap = static_cast<float>(c.attention_softcap),
          .window = local ? c.windows.tokens : 0,
          .slopes = slopes.empty() ? nullptr : slopes.data()};
}

std::shared_ptr<const AttentionPlan> Decoder::plan(const Pass& pass, bool local) {
  const DecoderConfig& c = weights_.config();
  auto plan = std::make_shared<AttentionPlan>();
  if (c.positions == Positions::kAlibi) plan->slopes = alibi_slopes(c);
  plan->shape = attention_shape(local, plan->slopes);
  const bool halves = c.positions == Positions::kRotaryHalves;
  plan->q_rope = {c.heads, c.head_dim, c.rotary, halves};
  plan->k_rope = {c.kv_heads, c.head_dim, c.rotary, halves};
  plan->rope_table = weights_.rope_table(pass.tree->max_path, local);
  plan->tree = pass.tree;
  plan->all = all_queries(*pass.tree);
  plan->labels = label_queries(*pass.tree);
  if (pass.prefix()) {
    plan->key_turns = pass.tree->positions;
    for (std::size_t i = 0; i < pass.tree->tokens.size(); ++i) {
      if (pass.tree->tokens[i] >= c.vocab) plan->key_turns[i] = -1;
    }
  }
  return plan;
}

at::Tensor Decoder::embedded(const Pass& pass) {
  const DecoderConfig& c = weights_.config();
  std::vector<std::int32_t> words = pass.tree->tokens;
  if (!pass.soft.empty()) {
    std::replace_if(
        words.begin(), words.end(), [&](std::int32_t t) { return t >= c.vocab; }, 0);
  }
  at::Tensor x = weights_.embedding().trained()
                     ? table_rows(weights_.embedding(), std::vector<std::int64_t>(words.begin(), words.end()))
                     : weights_.embed(words);
  if (const DecoderWeights::TrainedRows& rows = weights_.trained_rows(); rows.defined()) {
    std::vector<std::int64_t> nodes, which;
    for (std::size_t i = 0; i < words.size(); ++i) {
      const auto found = std::find(rows.ids.begin(), rows.ids.end(), words[i]);
      if (found == rows.ids.end()) continue;
      nodes.push_back(static_cast<std::int64_t>(i));
      which.push_back(found - rows.ids.begin());
    }
    if (!nodes.empty())
      x = x.index_copy(0, at::tensor(nodes, at::kLong).to(x.device()), table_rows(rows.embedding, which));
  }
  if (c.embedding_scale != 1) x = x * static_cast<float>(c.embedding_scale);
  if (!pass.soft.empty() && !pass.in_layers) x = with_rows(x, pass.soft, soft_prompt_->embeddings(), 0);
  if (weights_.positions().defined()) x = x + table_rows(weights_.positions(), pass.tree->positions);
  if (weights_.embedding_norm().defined()) x = norm(x, norm_spec(weights_.embedding_norm()));
  return x;
}

at::Tensor Decoder::shaped(const Pass& pass, std::int64_t layer, at::Tensor qkv, std::int64_t column) const {
  const DecoderConfig& c = weights_.config();
  const LayerNorms& norms = weights_.norms(layer);
  const bool queries = column > 0, keys = qkv.size(1) > column;
  if (c.clamp_qkv > 0) qkv = at::clamp(qkv, -c.clamp_qkv, c.clamp_qkv);
  if (keys && adapters_ != nullptr && adapters_->layer(layer).keys_values.defined())
    qkv = scale_columns(qkv, adapters_->layer(layer).keys_values, column);
  if (norms.q.defined() || norms.k.defined())
    qkv = head_norms(qkv, queries ? norms.q : Norm(), keys ? norms.k : Norm(), c.eps, c);
  if (keys && pass.prefix()) qkv = with_rows(qkv, pass.soft, soft_prompt_->keys_values(layer), column);
  return qkv;
}

/// What attention gives, before its output layer. In the last block `x` shrinks to the tokens that are asked.
at::Tensor Decoder::attended(const Pass& pass, std::int64_t layer, at::Tensor& x, std::vector<at::Tensor>* seen) {
  const DecoderConfig& c = weights_.config();
  const LayerNorms& norms = weights_.norms(layer);
  const std::int64_t q_width = c.q_width(), kv_width = 2 * c.kv_width();  // keys, then values
  const LinearSpec whole = spec(layer, LinearGroup::kQkv, pass.dropout);
  const NormSpec before = norm_spec(norms.attention);
  const auto& plan = c.windows.has(layer) ? pass.local : pass.everywhere;
  if (layer + 1 < c.layers || pass.all_asked) {
    const at::Tensor qkv = shaped(pass, layer, norm_linear(x, before, whole), q_width);
    if (seen != nullptr) {
      seen->push_back(qkv.narrow(1, q_width, kv_width).clone());
      turn(seen->back(), plan->k_rope, *plan, pass.tree->positions);
    }
    return attention(qkv, plan);
  }
  const at::Tensor kv = shaped(pass, layer, norm_linear(x, before, whole.slice(q_width, q_width + kv_width)), 0);
  x = x.index_select(0, pass.label_nodes);
  const at::Tensor q = shaped(pass, layer, norm_linear(x, before, whole.slice(0, q_width)), q_width);
  return attention_at_labels(q, kv, plan);
}

/// x + the output layer of what attention gives.
at::Tensor Decoder::after_attention(const Pass& pass, std::int64_t layer, const at::Tensor& heads,
                                    const at::Tensor& x) {
  const Norm& behind = weights_.norms(layer).post_attention;
  const LinearSpec out = spec(layer, LinearGroup::kOutput, pass.dropout);
  const bool adapted = adapters_ != nullptr && adapters_->layer(layer).after_attention.has_value();
  if (!behind.defined() && !adapted) return linear_add(heads, x, out);
  at::Tensor y = linear(heads, out);
  if (adapted) y = add_bottleneck(y, y, *adapters_->layer(layer).after_attention);
  if (behind.defined()) y = norm(y, norm_spec(behind));
  return x + y;
}

/// stream + feed-forward(x).
at::Tensor Decoder::fed_forward(const Pass& pass, std::int64_t layer, const at::Tensor& x, const at::Tensor& stream) {
  const DecoderConfig& c = weights_.config();
  const LayerNorms& norms = weights_.norms(layer);
  const LinearSpec down = spec(layer, LinearGroup::kDown, pass.dropout);
  const at::Tensor up = norm_linear(x, norm_spec(norms.feed_forward), spec(layer, LinearGroup::kUp, pass.dropout));
  const DecoderAdapters::Layer none;
  const DecoderAdapters::Layer& added = adapters_ == nullptr ? none : adapters_->layer(layer);
  const bool plain = !norms.post_feed_forward.defined() && !added.beside_ffn && !added.after_ffn;
  at::Tensor y;
  if (added.inner.defined()) {
    const at::Tensor inner = scale_columns(activated(up, c.activation), added.inner, 0);
    if (plain) return linear_add(inner, stream, down);
    y = linear(inner, down);
  } else {
    if (plain) return activated_linear_add(up, c.activation, stream, down);
    y = activated_linear(up, c.activation, down);
  }
  if (added.beside_ffn) y = add_bottleneck(y, norm(x, norm_spec(norms.feed_forward)), *added.beside_ffn);
  if (added.after_ffn) y = add_bottleneck(y, y, *added.after_ffn);
  if (norms.post_feed_forward.defined()) y = norm(y, norm_spec(norms.post_feed_forward));
  return stream + y;
}

Decoder::Pass Decoder::pass_of(const std::shared_ptr<const PackedTree>& tree, const DropoutKey* dropout) {
  const DecoderConfig& c = weights_.config();
  Pass pass;
  pass.tree = tree;
  pass.dropout = dropout;
  if (soft_prompt_ != nullptr) pass.soft = SoftRows(*tree, c.vocab, weights_.device());
  pass.in_layers = soft_prompt_ != nullptr && soft_prompt_->in_every_layer();
  pass.label_nodes = at::tensor(tree->label_nodes, at::kLong).to(weights_.device());
  pass.all_asked = tree->label_nodes.size() == tree->tokens.size();
  pass.everywhere = plan(pass, false);
  if (c.windows.tokens > 0) pass.local = plan(pass, true);
  return pass;
}

at::Tensor Decoder::through(const Pass& pass, std::int64_t layer, at::Tensor x, std::vector<at::Tensor>* seen) {
  const at::Tensor heads = attended(pass, layer, x, seen);
  const at::Tensor after = after_attention(pass, layer, heads, x);
  return fed_forward(pass, layer, weights_.config().parallel ? x : after, after);
}

Decoder::Start Decoder::start_at(const std::shared_ptr<const PackedTree>& tree, std::int64_t layer) {
  const c10::NoGradGuard no_grad;
  const Pass pass = pass_of(tree, nullptr);
  Start start{layer, embedded(pass)};
  for (std::int64_t l = 0; l < layer; ++l) start.states = through(pass, l, start.states, nullptr);
  return start;
}

at::Tensor Decoder::hidden_at_labels(const std::shared_ptr<const PackedTree>& tree, const DropoutKey* dropout,
                                     const Start& start, std::vector<at::Tensor>* seen) {
  const auto pass = std::make_shared<const Pass>(pass_of(tree, dropout));
  at::Tensor x = start.layer > 0 ? start.states : embedded(*pass);
  const std::int64_t last = weights_.config().layers - 1;
  for (std::int64_t layer = start.layer; layer <= last; ++layer) {
    // The last layer would be computed again at once, for no less memory.
    const bool again =
        checkpointing_ && at::GradMode::is_enabled() && layer < last && (x.requires_grad() || trains(*pass, layer));
    x = again
            ? checkpointed(x, [this, pass, layer](const at::Tensor& in) { return through(*pass, layer, in, nullptr); })
            : through(*pass, layer, x, seen);
  }
  return x;
}

/// Whether something in the layer is trained.
bool Decoder::trains(const Pass& pass, std::int64_t layer) const {
  if (adapters_ != nullptr || pass.prefix()) return true;
  for (std::size_t g = 0; g < kLinearGroups; ++g) {
    const auto group = static_cast<LinearGroup>(g);
    if (lora_ != nullptr && !lora_->group(layer, group).empty()) return true;
    if (weights_.group_grad(layer, group).defined() || weights_.bias(layer, group).trained()) return true;
  }
  const LayerNorms& n = weights_.norms(layer);
  const auto learnt = [](const Norm& norm) { return norm.gamma.trained() || norm.beta.trained(); };
  return learnt(n.attention) || learnt(n.feed_forward) || learnt(n.post_attention) || learnt(n.post_feed_forward) ||
         learnt(n.q) || learnt(n.k);
}

std::vector<float> Decoder::losses(const std::shared_ptr<const PackedTree>& tree, const Start& start,
                                   std::vector<std::uint8_t>* likeliest) {
  if (tree->targets.empty()) return {};
  const c10::NoGradGuard no_grad;
  const std::vector<float> ones(tree->targets.size(), 1.0f);
  return losses_of(head(), hidden_at_labels(tree, nullptr, start), *tree, ones, nullptr, likeliest);
}

std::vector<float> Decoder::losses_and_gradients(const std::shared_ptr<const PackedTree>& tree,
                                                 std::span<const float> target_weights, const DropoutKey* dropout,
                                                 const Start& start, std::vector<std::uint8_t>* likeliest) {
  if (tree->targets.empty()) return {};
  const at::Tensor hidden = hidden_at_labels(tree, dropout, start);
  at::Tensor dhidden;
  std::vector<float> losses = losses_of(head(), hidden.detach(), *tree, target_weights, &dhidden, likeliest);
  if (hidden.requires_grad()) torch::autograd::backward({hidden}, {dhidden});
  return losses;
}

at::Tensor Decoder::logits(const std::shared_ptr<const PackedTree>& tree) {
  const c10::NoGradGuard no_grad;
  return logits_of(head(), hidden_at_labels(tree, nullptr, {}));
}

}  // namespace tailor::tune::decoder
