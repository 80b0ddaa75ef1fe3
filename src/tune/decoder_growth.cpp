#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>

#include "tune/decoder.h"
#include "tune/decoder_pass.h"

namespace tailor::tune::decoder {
namespace {

constexpr std::int64_t kLeastRoom = 256;  // tokens

/// The first `held` rows stay.
void make_room(at::Tensor& keys_values, std::int64_t held, std::int64_t wanted, std::int64_t width,
               const at::Device& device) {
  const std::int64_t room = keys_values.defined() ? keys_values.size(0) : 0;
  if (wanted <= room) return;
  at::Tensor larger = at::empty({std::max({wanted, room + room / 2, kLeastRoom}), width},
                                at::TensorOptions().dtype(at::kFloat).device(device));
  if (held > 0) larger.narrow(0, 0, held).copy_(keys_values.narrow(0, 0, held));
  keys_values = larger;
}

/// The queries of `more` behind segments that do not ask.
QuerySet after(std::size_t held_segments, const QuerySet& more) {
  QuerySet out{std::vector<std::int64_t>(held_segments, 0), more.position};
  out.begin.insert(out.begin.end(), more.begin.begin(), more.begin.end());
  return out;
}

}  // namespace

void Decoder::Seen::cut(std::int64_t left) {
  while (!segments.empty() && segments.back().begin >= left) segments.pop_back();
  if (!segments.empty()) segments.back().length = std::min(segments.back().length, left - segments.back().begin);
  tokens = std::min(tokens, left);
}

at::Tensor Decoder::hidden_after(Seen& seen, const std::shared_ptr<const PackedTree>& more) {
  const DecoderConfig& c = weights_.config();
  const std::int64_t held = seen.tokens, n = more->size();
  const std::int64_t q_width = c.q_width(), kv_width = c.kv_width();
  const Pass pass = pass_of(more, nullptr);
  std::vector<TreeSegment> segments = seen.segments;
  for (TreeSegment segment : more->segments) {
    segment.begin += held;
    segments.push_back(segment);
  }
  const QuerySet all = after(seen.segments.size(), pass.everywhere->all);
  const QuerySet asked = after(seen.segments.size(), pass.everywhere->labels);
  seen.keys_values.resize(static_cast<std::size_t>(c.layers));

  at::Tensor x = embedded(pass);
  for (std::int64_t layer = 0; layer < c.layers; ++layer) {
    const AttentionPlan& plan = *(c.windows.has(layer) ? pass.local : pass.everywhere);
    const NormSpec before = norm_spec(weights_.norms(layer).attention);
    const LinearSpec whole = spec(layer, LinearGroup::kQkv, nullptr);
    at::Tensor& store = seen.keys_values[static_cast<std::size_t>(layer)];
    make_room(store, held, held + n, 2 * kv_width, weights_.device());
    at::Tensor q, kv;
    const bool last = layer + 1 == c.layers && !pass.all_asked;  // where only label nodes ask
    if (last) {
      kv = shaped(pass, layer, norm_linear(x, before, whole.slice(q_width, q_width + 2 * kv_width)), 0);
      x = x.index_select(0, pass.label_nodes);
      q = shaped(pass, layer, norm_linear(x, before, whole.slice(0, q_width)), q_width);
    } else {
      const at::Tensor qkv = shaped(pass, layer, norm_linear(x, before, whole), q_width);
      q = qkv.narrow(1, 0, q_width).contiguous();
      kv = qkv.narrow(1, q_width, 2 * kv_width);
    }
    store.narrow(0, held, n).copy_(kv);
    const QuerySet& asking = last ? asked : all;
    turn(store.narrow(0, held, n), plan.k_rope, plan, plan.key_positions());
    turn(q, plan.q_rope, plan, asking.position);
    const at::Tensor heads = attention_over(plan.shape, segments, asking, q, store.narrow(0, 0, held + n));
    const at::Tensor behind = after_attention(pass, layer, heads, x);
    x = fed_forward(pass, layer, c.parallel ? x : behind, behind);
  }
  seen.segments = std::move(segments);
  seen.tokens += n;
  return x;
}

std::vector<float> Decoder::losses_after(Seen& seen, const std::shared_ptr<const PackedTree>& more) {
  const at::NoGradGuard no_grad;
  const std::vector<float> ones(more->targets.size(), 1.0f);
  return losses_of(head(), hidden_after(seen, more), *more, ones, nullptr);
}

at::Tensor Decoder::next_logits(Seen& seen, std::span<const std::int32_t> tokens) {
  const at::NoGradGuard no_grad;
  const auto n = static_cast<std::int64_t>(tokens.size());
  auto tree = std::make_shared<PackedTree>();
  tree->tokens.assign(tokens.begin(), tokens.end());
  for (std::int64_t i = 0; i < n; ++i) tree->positions.push_back(seen.tokens + i);
  tree->segments.push_back({0, n, seen.tokens, static_cast<std::int32_t>(seen.segments.size()) - 1});
  tree->label_nodes.push_back(n - 1);
  tree->max_path = seen.tokens + n;
  return logits_of(head(), hidden_after(seen, tree)).squeeze(0);
}

}  // namespace tailor::tune::decoder
