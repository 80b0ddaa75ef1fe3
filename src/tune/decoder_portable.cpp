// The steps of a decoder in plain ATen, differentiated by autograd: for every device, and the reference of the kernels.

#include <ATen/ATen.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <limits>
#include <vector>

#include "core/rng.h"
#include "tune/decoder_backend.h"
#include "tune/portable.h"

namespace tailor::tune::decoder {

/// Which keys the queries see, and where all of them stand.
struct PortablePlan {
  at::Tensor all_see, labels_see;                        // bool [queries, tokens]
  at::Tensor all_positions, label_positions, key_turns;  // int64
  at::Tensor places;                                     // [tokens] on their paths, f32
};

namespace {

using portable::index_of;
using portable::leaf;

at::Tensor normed(const at::Tensor& x, const NormSpec& spec) {
  const at::Tensor gamma = leaf(spec.weights.gamma);
  if (spec.kind == NormKind::kRms) return x * at::rsqrt(at::mean(at::square(x), -1, true) + spec.eps) * gamma;
  const at::Tensor beta = spec.weights.beta.defined() ? leaf(spec.weights.beta) : at::Tensor();
  return at::layer_norm(x, {x.size(-1)}, gamma, beta, spec.eps);
}

at::Tensor activation_of(const at::Tensor& x, Activation kind) {
  const std::int64_t half = x.size(1) / 2;
  switch (kind) {
    case Activation::kSwiglu:
      return at::silu(x.narrow(1, 0, half)) * x.narrow(1, half, half);
    case Activation::kGeglu:
      return at::gelu(x.narrow(1, 0, half), "tanh") * x.narrow(1, half, half);
    case Activation::kGelu:
      return at::gelu(x, "tanh");
    case Activation::kGeluExact:
      break;
  }
  return at::gelu(x);
}

/// Rows [out_begin, out_end) of what belongs to a group.
at::Tensor part_of(const at::Tensor& whole, const LinearSpec& spec) {
  if (!whole.defined() || spec.out_end < 0) return whole;
  return whole.narrow(0, spec.out_begin, spec.out_end - spec.out_begin);
}

at::Tensor product(const at::Tensor& x, const LinearSpec& spec) {
  const at::Tensor grad = part_of(spec.weights->group_grad(spec.layer, spec.group), spec);
  if (grad.defined()) return at::linear(x, leaf(part_of(spec.weights->group(spec.layer, spec.group), spec), grad));
  return portable::frozen_product(x, [spec] { return part_of(spec.weights->group(spec.layer, spec.group), spec); });
}

at::Tensor dropped(const at::Tensor& x, const LinearSpec& spec) {
  const double p = spec.lora.dropout;
  if (!spec.training || p <= 0) return x;
  const std::uint64_t stream = dropout_stream(spec);
  return x * portable::counted_factors(spec.dropout.seed, stream, static_cast<std::uint64_t>(p * 65536.0 + 0.5),
                                       static_cast<float>(1.0 / (1.0 - p)), x.numel(), x.device())
                 .view(x.sizes());
}

/// Pieces at the columns of the adapter's members, `filler` between them.
template <typename Piece, typename Filler>
at::Tensor by_columns(const LoraGroup& lora, std::int64_t width, int dimension, const Piece& piece,
                      const Filler& filler) {
  std::vector<at::Tensor> pieces;
  std::int64_t column = 0;
  for (const LoraGroup::Member& m : lora.members) {
    if (m.out_begin > column) pieces.push_back(filler(m.out_begin - column));
    pieces.push_back(piece(m));
    column = m.out_begin + m.out;
  }
  if (column < width) pieces.push_back(filler(width - column));
  return at::cat(pieces, dimension);
}

at::Tensor turned(const at::Tensor& x, const RopeShape& shape, const at::Tensor& table, const at::Tensor& positions) {
  if (shape.rotary == 0) return x;
  const std::int64_t n = x.size(0), half = shape.rotary / 2;
  const at::Tensor angles = table.index_select(0, positions + 1).unsqueeze(1);
  const at::Tensor cos = angles.slice(2, 0, shape.rotary, 2), sin = angles.slice(2, 1, shape.rotary, 2);
  const at::Tensor heads = x.reshape({n, shape.heads, shape.head_dim});
  const at::Tensor a = shape.halves ? heads.narrow(2, 0, half) : heads.slice(2, 0, shape.rotary, 2);
  const at::Tensor b = shape.halves ? heads.narrow(2, half, half) : heads.slice(2, 1, shape.rotary, 2);
  const at::Tensor first = a * cos - b * sin, second = a * sin + b * cos;
  at::Tensor out = shape.halves ? at::cat({first, second}, 2) : at::stack({first, second}, 3).flatten(2);
  if (shape.rotary < shape.head_dim)
    out = at::cat({out, heads.narrow(2, shape.rotary, shape.head_dim - shape.rotary)}, 2);
  return out.reshape({n, shape.heads * shape.head_dim});
}

/// bool [queries, tokens]: the keys on a query's path, up to its own place and inside its window.
at::Tensor seen_keys(std::span<const TreeSegment> segments, const QuerySet& queries, std::int64_t tokens,
                     std::int64_t window, const at::Device& device) {
  at::Tensor mask = at::zeros({queries.size(), tokens}, at::kBool);
  bool* to = mask.data_ptr<bool>();
  for (std::size_t s = 0; s < segments.size(); ++s) {
    for (std::int64_t q = queries.begin[s]; q < queries.begin[s + 1]; ++q) {
      const std::int64_t last = queries.position[static_cast<std::size_t>(q)];
      const std::int64_t first = window > 0 ? std::max<std::int64_t>(0, last + 1 - window) : 0;
      for (auto i = static_cast<std::int64_t>(s); i >= 0; i = segments[static_cast<std::size_t>(i)].parent) {
        const TreeSegment& t = segments[static_cast<std::size_t>(i)];
        const std::int64_t begin = std::max<std::int64_t>(0, first - t.offset);
        const std::int64_t end = std::min(t.length, last + 1 - t.offset);
        for (std::int64_t j = begin; j < end; ++j) to[q * tokens + t.begin + j] = true;
      }
    }
  }
  return mask.to(device);
}

at::Tensor places_of(std::span<const TreeSegment> segments, std::int64_t tokens, const at::Device& device) {
  at::Tensor places = at::zeros({tokens}, at::kFloat);
  float* to = places.data_ptr<float>();
  for (const TreeSegment& t : segments) {
    for (std::int64_t j = 0; j < t.length; ++j) to[t.begin + j] = static_cast<float>(t.offset + j);
  }
  return places.to(device);
}

/// q [queries, heads * head_dim], k and v [tokens, kv_heads * head_dim].
at::Tensor attend(const AttentionShape& shape, const at::Tensor& sees, const at::Tensor& places, const at::Tensor& q,
                  const at::Tensor& k, const at::Tensor& v) {
  const auto heads_of = [&](const at::Tensor& x, std::int64_t heads) {
    const at::Tensor by_head = x.reshape({x.size(0), heads, shape.head_dim}).transpose(0, 1);
    return heads == shape.heads ? by_head : by_head.repeat_interleave(shape.heads / heads, 0);
  };
  const at::Tensor qh = heads_of(q, shape.heads), kh = heads_of(k, shape.kv_heads), vh = heads_of(v, shape.kv_heads);
  constexpr double kNever = -std::numeric_limits<double>::infinity();
  at::Tensor bias;  // what is added to the scores
  if (shape.slopes != nullptr) {
    const at::Tensor slopes =
        at::tensor(at::ArrayRef<float>(shape.slopes, static_cast<std::size_t>(shape.heads)), at::kFloat).to(q.device());
    bias = (slopes.view({-1, 1, 1}) * places.view({1, 1, -1})).masked_fill(sees.logical_not().unsqueeze(0), kNever);
  }
  at::Tensor out;
  if (shape.softcap > 0) {
    at::Tensor scores = at::matmul(qh, kh.transpose(1, 2)) * shape.scale;
    scores = at::tanh(scores / shape.softcap) * shape.softcap;
    scores = bias.defined() ? scores + bias : scores.masked_fill(sees.logical_not().unsqueeze(0), kNever);
    out = at::matmul(at::softmax(scores, 2), vh);
  } else {
    const at::Tensor mask = bias.defined() ? bias : sees.unsqueeze(0);
    out = at::scaled_dot_product_attention(qh.unsqueeze(0), kh.unsqueeze(0), vh.unsqueeze(0), mask.unsqueeze(0), 0.0,
                                           false, shape.scale)
              .squeeze(0);
  }
  return out.transpose(0, 1).reshape({q.size(0), shape.heads * shape.head_dim});
}

const PortablePlan& portable_plan(const AttentionPlan& plan, const at::Device& device) {
  if (plan.portable) return *plan.portable;
  auto made = std::make_shared<PortablePlan>();
  const std::span<const TreeSegment> segments = plan.tree->segments;
  const std::int64_t tokens = plan.tree->size();
  made->all_see = seen_keys(segments, plan.all, tokens, plan.shape.window, device);
  made->labels_see = seen_keys(segments, plan.labels, tokens, plan.shape.window, device);
  made->all_positions = index_of(std::span(plan.all.position), device);
  made->label_positions = index_of(std::span(plan.labels.position), device);
  made->key_turns = index_of(plan.key_positions(), device);
  made->places = places_of(segments, tokens, device);
  plan.portable = made;
  return *plan.portable;
}

at::Tensor table_output(DecoderWeights& weights, const at::Tensor& normed) {
  const std::int64_t vocab = weights.config().vocab;
  if (weights.output_grad().defined())
    return at::linear(normed, leaf(weights.output_rows(0, vocab), weights.output_grad()));
  const std::int64_t chunk = weights.output_chunk();
  std::vector<at::Tensor> parts;
  for (std::int64_t begin = 0; begin < vocab; begin += chunk) {
    const std::int64_t end = std::min(vocab, begin + chunk);
    parts.push_back(
        portable::frozen_product(normed, [&weights, begin, end] { return weights.output_rows(begin, end); }));
  }
  return parts.size() == 1 ? parts[0] : at::cat(parts, 1);
}

at::Tensor output(DecoderWeights& weights, const at::Tensor& normed) {
  const at::Tensor logits = table_output(weights, normed);
  const DecoderWeights::TrainedRows& rows = weights.trained_rows();
  return rows.defined() ? logits.index_copy(1, rows.index, at::linear(normed, leaf(rows.output))) : logits;
}

class PortableBackend final : public DecoderBackend {
 public:
  at::Tensor linear(const at::Tensor& x, const std::optional<at::Tensor>& residual,
                    const LinearCall& call) const override {
    const LinearSpec& spec = call.spec;
    const LoraGroup& lora = spec.lora;
    const at::Tensor in = call.input == Input::kNorm         ? normed(x, call.norm)
                          : call.input == Input::kActivation ? activation_of(x, call.activation)
                                                             : x;
    at::Tensor y = product(in, spec);
    const auto zeros = [&](std::int64_t columns) { return at::zeros({y.size(0), columns}, y.options()); };
    const auto ones = [&](std::int64_t columns) { return at::ones({columns}, y.options()); };
    if (!lora.empty()) {
      const at::Tensor seen = dropped(in, spec);
      y = y + by_columns(
                  lora, y.size(1), 1,
                  [&](const LoraGroup::Member& m) {
                    const at::Tensor a =
                        leaf(lora.a.narrow(0, m.rank_begin, m.rank), lora.grad_a.narrow(0, m.rank_begin, m.rank));
                    return at::linear(at::linear(seen, a), leaf(m.b, m.grad_b)) * lora.scale;
                  },
                  zeros);
    }
    if (lora.has_magnitudes()) {
      y = y * by_columns(
                  lora, y.size(1), 0, [&](const LoraGroup::Member& m) { return leaf(m.magnitude) / m.length; }, ones);
    }
    if (residual) y = y + *residual;
    if (const Slot& bias = spec.weights->bias(spec.layer, spec.group); bias.defined())
      y = y + leaf(part_of(bias.value.detach(), spec), part_of(bias.grad, spec));
    return y;
  }

  at::Tensor norm(const at::Tensor& x, const NormSpec& spec) const override { return normed(x, spec); }
  at::Tensor activated(const at::Tensor& x, Activation activation) const override {
    return activation_of(x, activation);
  }

  at::Tensor head_norms(const at::Tensor& qkv, const std::vector<HeadNorm>& norms, double eps,
                        std::int64_t dim) const override {
    std::vector<at::Tensor> parts;
    std::int64_t column = 0;
    for (const HeadNorm& of : norms) {
      if (of.column > column) parts.push_back(qkv.narrow(1, column, of.column - column));
      const at::Tensor heads = qkv.narrow(1, of.column, of.heads * dim).reshape({qkv.size(0), of.heads, dim});
      parts.push_back(normed(heads, {of.norm, NormKind::kRms, eps}).flatten(1));
      column = of.column + of.heads * dim;
    }
    if (column < qkv.size(1)) parts.push_back(qkv.narrow(1, column, qkv.size(1) - column));
    return at::cat(parts, 1);
  }

  at::Tensor table_rows(const Slot& table, std::span<const std::int64_t> ids) const override {
    return leaf(table).index_select(0, index_of(ids, table.value.device()));
  }

  at::Tensor attention(const at::Tensor& q, const at::Tensor& kv,
                       const std::shared_ptr<const AttentionPlan>& plan) const override {
    const AttentionShape& shape = plan->shape;
    const PortablePlan& p = portable_plan(*plan, q.device());
    const std::int64_t q_width = shape.heads * shape.head_dim, kv_width = shape.kv_heads * shape.head_dim;
    const bool labels = kv.defined();
    const at::Tensor keys_values = labels ? kv : q.narrow(1, q_width, 2 * kv_width);
    const at::Tensor asking =
        turned(q.narrow(1, 0, q_width), plan->q_rope, plan->rope_table, labels ? p.label_positions : p.all_positions);
    const at::Tensor keys = turned(keys_values.narrow(1, 0, kv_width), plan->k_rope, plan->rope_table, p.key_turns);
    return attend(shape, labels ? p.labels_see : p.all_see, p.places, asking, keys,
                  keys_values.narrow(1, kv_width, kv_width));
  }

  void turn(const at::Tensor& rows, const RopeShape& shape, const AttentionPlan& plan,
            std::span<const std::int64_t> positions) const override {
    at::Tensor heads = rows.narrow(1, 0, shape.heads * shape.head_dim);
    heads.copy_(turned(heads, shape, plan.rope_table, index_of(positions, rows.device())));
  }

  at::Tensor attention_over(const AttentionShape& shape, std::span<const TreeSegment> segments, const QuerySet& queries,
                            const at::Tensor& q, const at::Tensor& keys_values) const override {
    const std::int64_t kv_width = shape.kv_heads * shape.head_dim, tokens = keys_values.size(0);
    return attend(shape, seen_keys(segments, queries, tokens, shape.window, q.device()),
                  places_of(segments, tokens, q.device()), q, keys_values.narrow(1, 0, kv_width),
                  keys_values.narrow(1, kv_width, kv_width));
  }

  at::Tensor logits(const LossHead& head, const at::Tensor& hidden) const override {
    const at::Tensor z = output(head.weights, normed(hidden, head.norm));
    const double cap = head.weights.config().logit_softcap;
    return cap > 0 ? at::tanh(z / cap) * cap : z;
  }

  std::vector<float> losses(const LossHead& head, const at::Tensor& hidden, const PackedTree& tree,
                            std::span<const float> target_weights, at::Tensor* dhidden,
                            std::vector<std::uint8_t>* likeliest) const override {
    std::vector<float> losses(tree.targets.size());
    if (dhidden != nullptr) *dhidden = at::empty_like(hidden);
    std::size_t first = 0;  // target of the slice
    for (std::int64_t begin = 0; begin < hidden.size(0); begin += kLabelSlice) {
      const std::int64_t n = std::min(kLabelSlice, hidden.size(0) - begin);
      std::vector<std::int64_t> nodes, tokens;
      std::size_t end = first;
      for (; end < tree.targets.size() && tree.targets[end].node < begin + n; ++end) {
        nodes.push_back(tree.targets[end].node - begin);
        tokens.push_back(tree.targets[end].token);
      }
      const at::AutoGradMode with_gradients(dhidden != nullptr);
      at::Tensor x = hidden.narrow(0, begin, n).detach();
      if (dhidden != nullptr) x.requires_grad_();
      const at::Tensor log_p = at::log_softmax(logits(head, x), 1);
      const at::Tensor at_nodes = log_p.index_select(0, index_of(std::span<const std::int64_t>(nodes), x.device()));
      const at::Tensor of_targets =
          -at_nodes.gather(1, index_of(std::span<const std::int64_t>(tokens), x.device()).unsqueeze(1)).squeeze(1);
      const at::Tensor on_cpu = of_targets.detach().cpu();
      std::copy_n(on_cpu.data_ptr<float>(), end - first, losses.begin() + static_cast<std::ptrdiff_t>(first));
      if (likeliest != nullptr) {
        const at::Tensor top = at_nodes.detach().amax(1).cpu();
        for (std::size_t t = first; t < end; ++t) {
          const auto i = static_cast<std::int64_t>(t - first);
          (*likeliest)[t] = -on_cpu.data_ptr<float>()[i] >= top.data_ptr<float>()[i] ? 1 : 0;
        }
      }
      if (dhidden != nullptr) {
        const at::Tensor weights =
            at::tensor(at::ArrayRef<float>(target_weights.data() + first, end - first), at::kFloat);
        torch::autograd::backward({of_targets}, {weights.to(x.device())});
        dhidden->narrow(0, begin, n).copy_(x.grad());
      }
      first = end;
    }
    return losses;
  }
};

}  // namespace

const DecoderBackend& portable_backend() {
  static const PortableBackend kBackend;
  return kBackend;
}

}  // namespace tailor::tune::decoder
