#include "tune/decoder_backend.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <utility>
#include <vector>

#include "core/rng.h"
#include "tune/frozen_gemm.h"
#include "tune/profile.h"

namespace tailor::tune::decoder {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;

/// What a function keeps for its backward pass, carried by the graph.
template <typename T>
struct Kept : torch::CustomClassHolder {
  T value;
};
template <typename T>
void keep(AutogradContext* context, T value) {
  auto holder = c10::make_intrusive<Kept<T>>();
  holder->value = std::move(value);
  context->saved_data["kept"] = c10::IValue::make_capsule(std::move(holder));
}
/// Hands the value over; a second backward pass through the same graph is not supported.
template <typename T>
T take(AutogradContext* context) {
  auto holder = c10::static_intrusive_pointer_cast<Kept<T>>(context->saved_data.at("kept").toCapsule());
  context->saved_data.clear();
  return std::move(holder->value);
}

/// What a norm keeps of its rows.
struct NormState {
  at::Tensor mean;     // layer norms
  at::Tensor inverse;  // of the root mean square, or of the standard deviation
};

struct LinearState {
  LinearCall call;
  at::Tensor x;  // as given, before norm or activation
  NormState norm;
  at::Tensor h;        // [n, sum of ranks]
  at::Tensor product;  // [n, out] before magnitudes, where the adapter has some
  bool has_residual = false;
};

const float* beta_of(const NormSpec& spec) {
  return spec.weights.beta.defined() ? spec.weights.beta.value.data_ptr<float>() : nullptr;
}
float* grad_of(const Slot& slot) {
  return slot.trained() ? slot.grad.data_ptr<float>() : nullptr;
}
bool trained(const Norm& norm) {
  return norm.gamma.trained() || norm.beta.trained();
}

/// Computes the norm; again, from what it kept, where `state` holds something.
at::Tensor normed(const at::Tensor& x, const NormSpec& spec, NormState& state) {
  at::Tensor y = at::empty_like(x);
  const float* from = x.data_ptr<float>();
  const float* w = spec.weights.gamma.value.data_ptr<float>();
  const std::int64_t rows = x.size(0), n = x.size(1);
  const bool again = state.inverse.defined();
  if (!again) state.inverse = at::empty({rows}, x.options());
  float* inverse = state.inverse.data_ptr<float>();
  if (spec.kind == NormKind::kRms) {
    if (again) {
      rms_norm_again(from, w, inverse, rows, n, y.data_ptr<float>());
    } else {
      rms_norm(from, w, static_cast<float>(spec.eps), rows, n, y.data_ptr<float>(), inverse);
    }
    return y;
  }
  if (!again) state.mean = at::empty({rows}, x.options());
  float* mean = state.mean.data_ptr<float>();
  if (again) {
    layer_norm_again(from, w, beta_of(spec), mean, inverse, rows, n, y.data_ptr<float>());
  } else {
    layer_norm(from, w, beta_of(spec), static_cast<float>(spec.eps), rows, n, y.data_ptr<float>(), mean, inverse);
  }
  return y;
}

at::Tensor normed_backward(const at::Tensor& dy, const at::Tensor& x, const NormSpec& spec, const NormState& state) {
  at::Tensor dx = at::empty_like(x);
  const float* w = spec.weights.gamma.value.data_ptr<float>();
  float* dw = grad_of(spec.weights.gamma);
  if (spec.kind == NormKind::kRms) {
    rms_norm_backward(dy.data_ptr<float>(), x.data_ptr<float>(), w, state.inverse.data_ptr<float>(), x.size(0),
                      x.size(1), dx.data_ptr<float>(), dw);
  } else {
    layer_norm_backward(dy.data_ptr<float>(), x.data_ptr<float>(), w, state.mean.data_ptr<float>(),
                        state.inverse.data_ptr<float>(), x.size(0), x.size(1), dx.data_ptr<float>(), dw,
                        grad_of(spec.weights.beta));
  }
  return dx;
}

at::Tensor activation_of(const at::Tensor& x, Activation kind) {
  at::Tensor h = at::empty({x.size(0), is_gated(kind) ? x.size(1) / 2 : x.size(1)}, x.options());
  activate(kind, x.data_ptr<float>(), x.size(0), h.size(1), h.data_ptr<float>());
  return h;
}

at::Tensor activation_backward(const at::Tensor& dh, const at::Tensor& x, Activation kind) {
  at::Tensor dx = at::empty_like(x);
  activate_backward(kind, dh.data_ptr<float>(), x.data_ptr<float>(), x.size(0), dh.size(1), dx.data_ptr<float>());
  return dx;
}

std::int64_t width_of(const LinearSpec& spec) {
  if (spec.out_end >= 0) return spec.out_end - spec.out_begin;
  std::int64_t width = 0;
  for (const Module& m : spec.weights->config().of(spec.group)) width += m.out;
  return width;
}

at::Tensor weight_of(const LinearSpec& spec) {
  const at::Tensor w = spec.weights->group(spec.layer, spec.group);
  return spec.out_end < 0 ? w : w.narrow(0, spec.out_begin, spec.out_end - spec.out_begin);
}

/// The modules of a call, or what it takes of them, with their adapters; empty where the fast products do not suit.
std::vector<ProductPart> parts_of(const LinearSpec& spec) {
  std::vector<ProductPart> parts;
  const DecoderConfig& config = spec.weights->config();
  const std::int64_t last = spec.out_end < 0 ? std::numeric_limits<std::int64_t>::max() : spec.out_end;
  std::int64_t begin = 0;
  for (const Module& module : config.of(spec.group)) {
    const std::int64_t end = begin + module.out;
    const std::int64_t from = std::max(begin, spec.out_begin), to = std::min(end, last);
    if (from < to) {
      FrozenMatrix w = spec.weights->matrix(spec.layer, config.index(module));
      w.data += static_cast<std::size_t>(from - begin) * w.row_bytes;
      w.rows = to - from;
      if (!fast_gemm_suits(w)) return {};
      ProductPart part{w};
      for (const LoraGroup::Member& m : spec.lora.members) {
        if (m.out_begin + spec.out_begin != from) continue;
        part.lora_b = m.b.data_ptr<float>();
        part.rank = m.rank;
        part.rank_begin = m.rank_begin;
      }
      parts.push_back(part);
    }
    begin = end;
  }
  return parts;
}

/// h = x A^T.
at::Tensor low_rank(const at::Tensor& x, const at::Tensor& a) {
  const at::Tensor turned = a.t().contiguous();
  at::Tensor h = at::empty({x.size(0), a.size(0)}, x.options());
  thin_product(h.size(0), h.size(1), x.size(1), x.data_ptr<float>(), x.size(1), 1, turned.data_ptr<float>(), h.size(1),
               h.data_ptr<float>(), h.size(1), false);
  return h;
}

/// x after dropout, or a gradient through it: kept with probability 1 - p and divided by it. The mask is drawn anew
/// each time from a counter: four 16-bit numbers a draw.
at::Tensor dropped(const at::Tensor& x, const LinearSpec& spec) {
  const double p = spec.lora.dropout;
  const auto threshold = static_cast<std::uint64_t>(p * 65536.0 + 0.5);
  const auto keep_scale = static_cast<float>(1.0 / (1.0 - p));
  const std::uint64_t stream = dropout_stream(spec);
  at::Tensor y = at::empty_like(x);
  const float* from = x.data_ptr<float>();
  float* to = y.data_ptr<float>();
  const std::int64_t n = x.numel();
  at::parallel_for(0, (n + 3) / 4, 4096, [&](std::int64_t begin, std::int64_t end) {
    Rng rng(spec.dropout.seed, stream);
    rng.set_counter(static_cast<std::uint64_t>(begin));
    for (std::int64_t i = begin; i < end; ++i) {
      std::uint64_t bits = rng.bits();
      for (std::int64_t j = 4 * i; j < std::min(n, 4 * i + 4); ++j, bits >>= 16) {
        to[j] = (bits & 0xFFFF) >= threshold ? from[j] * keep_scale : 0.0f;
      }
    }
  });
  return y;
}

at::Tensor input_of(const LinearCall& call, const at::Tensor& x, NormState& state) {
  switch (call.input) {
    case Input::kPlain:
      return x;
    case Input::kNorm:
      return normed(x, call.norm, state);
    case Input::kActivation:
      break;
  }
  return activation_of(x, call.activation);
}

at::Tensor input_backward(const LinearState& state, const at::Tensor& din) {
  switch (state.call.input) {
    case Input::kPlain:
      return din;
    case Input::kNorm:
      return normed_backward(din, state.x, state.call.norm, state.norm);
    case Input::kActivation:
      break;
  }
  return activation_backward(din, state.x, state.call.activation);
}

/// The part of the group's bias that a call adds; undefined: none.
Slot bias_of(const LinearSpec& spec) {
  Slot bias = spec.weights->bias(spec.layer, spec.group);
  if (!bias.defined() || spec.out_end < 0) return bias;
  const std::int64_t n = spec.out_end - spec.out_begin;
  if (bias.trained()) bias.grad = bias.grad.narrow(0, spec.out_begin, n);
  bias.value = bias.value.detach().narrow(0, spec.out_begin, n);
  return bias;
}

class FusedLinear : public Function<FusedLinear> {
 public:
  /// `leaf` is one of the parameters here, or absent: it makes autograd come back even where x itself needs no
  /// gradient.
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const std::optional<at::Tensor>& residual,
                            const std::optional<at::Tensor>& leaf, const LinearCall& call) {
    (void)leaf;
    const at::AutoDispatchBelowADInplaceOrView below;
    const LinearSpec& spec = call.spec;
    LinearState state{call, x, {}, {}, {}, residual.has_value()};
    const at::Tensor in = input_of(call, x, state.norm);
    if (!spec.lora.empty()) {
      const bool drop = spec.training && spec.lora.dropout > 0;
      state.h = low_rank(drop ? dropped(in, spec) : in, spec.lora.a);
    }
    // Magnitudes scale the product alone; what is added comes after them.
    const bool magnitudes = spec.lora.has_magnitudes();
    const std::optional<at::Tensor> early = magnitudes ? std::nullopt : residual;
    const std::int64_t width = width_of(spec);
    at::Tensor y;
    if (const std::vector<ProductPart> parts = parts_of(spec); !parts.empty()) {
      y = at::empty({in.size(0), width}, in.options());
      frozen_product(parts, in.data_ptr<float>(), in.size(1), in.size(0),
                     spec.lora.empty() ? nullptr : state.h.data_ptr<float>(), spec.lora.empty() ? 0 : state.h.size(1),
                     static_cast<float>(spec.lora.scale), early ? early->data_ptr<float>() : nullptr,
                     y.data_ptr<float>(), width);
    } else {
      const at::Tensor wt = weight_of(spec).t();
      const ProfileScope scope = ProfileScope::product(Kernel::kProduct, in.size(0), width, in.size(1));
      y = early ? at::addmm(*early, in, wt) : at::mm(in, wt);
      for (const LoraGroup::Member& m : spec.lora.members) {
        y.narrow(1, m.out_begin, m.out).addmm_(state.h.narrow(1, m.rank_begin, m.rank), m.b.t(), 1.0, spec.lora.scale);
      }
    }
    if (magnitudes) {
      state.product = y;
      y = y.clone();
      for (const LoraGroup::Member& m : spec.lora.members)
        y.narrow(1, m.out_begin, m.out).mul_(m.magnitude.value.detach() / m.length);
      if (residual) y.add_(*residual);
    }
    if (const Slot bias = bias_of(spec); bias.defined()) y.add_(bias.value.detach());
    keep(context, std::move(state));
    return y;
  }

  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const at::AutoDispatchBelowADInplaceOrView below;
    const bool need_x = context->needs_input_grad(0);
    const LinearState state = take<LinearState>(context);
    const bool need_residual = state.has_residual && context->needs_input_grad(1);
    const LinearSpec& spec = state.call.spec;
    const at::Tensor given = grads[0].contiguous();
    if (const Slot bias = bias_of(spec); bias.trained()) {
      at::Tensor db = bias.grad;
      db.add_(at::sum(given, 0));
    }
    const at::Tensor dy = state.product.defined() ? magnitude_backward(state, given) : given;
    const bool drop = spec.training && spec.lora.dropout > 0;
    at::Tensor weight_grad = spec.weights->group_grad(spec.layer, spec.group);
    NormState again = state.norm;
    at::Tensor in;
    if (weight_grad.defined() || !spec.lora.empty()) in = input_of(state.call, state.x, again);
    if (weight_grad.defined()) {
      if (spec.out_end >= 0) weight_grad = weight_grad.narrow(0, spec.out_begin, spec.out_end - spec.out_begin);
      const ProfileScope scope = ProfileScope::product(Kernel::kWeightGradient, dy.size(1), in.size(1), in.size(0));
      weight_grad.addmm_(dy.t(), in);
    }
    const at::Tensor dh = spec.lora.empty() ? at::Tensor() : adapter_backward(state, dy, in, drop);
    // A norm's own weights learn from the gradient of its output, wanted or not by what lies below.
    const bool need_in = need_x || (state.call.input == Input::kNorm && trained(state.call.norm.weights));
    at::Tensor din;
    if (need_in) {
      const bool fused = dh.defined() && !drop;  // the adapter's part of dx rides along
      if (const std::vector<ProductPart> parts = parts_of(spec); !parts.empty()) {
        din = at::empty({dy.size(0), parts.front().w.columns}, dy.options());
        frozen_product_backward(parts, dy.data_ptr<float>(), dy.size(1), dy.size(0),
                                fused ? dh.data_ptr<float>() : nullptr, fused ? dh.size(1) : 0,
                                fused ? spec.lora.a.data_ptr<float>() : nullptr, din.data_ptr<float>(), din.size(1));
      } else {
        const at::Tensor w = weight_of(spec);
        const ProfileScope scope = ProfileScope::product(Kernel::kProductBackward, dy.size(0), w.size(1), dy.size(1));
        din = at::mm(dy, w);
        if (fused) din.addmm_(dh, spec.lora.a);
      }
      if (dh.defined() && drop) din.add_(dropped(at::mm(dh, spec.lora.a), spec));
    }
    at::Tensor dx;
    if (need_in) dx = input_backward(state, din);
    return {need_x ? dx : at::Tensor(), need_residual ? given : at::Tensor(), at::Tensor(), at::Tensor()};
  }

 private:
  /// Adds the gradients of the magnitudes; returns that of the product.
  static at::Tensor magnitude_backward(const LinearState& state, const at::Tensor& dy) {
    at::Tensor scaled = dy.clone();
    for (const LoraGroup::Member& m : state.call.spec.lora.members) {
      at::Tensor part = scaled.narrow(1, m.out_begin, m.out);
      at::Tensor dm = m.magnitude.grad;
      dm.add_(at::sum(part * state.product.narrow(1, m.out_begin, m.out), 0) / m.length);
      part.mul_(m.magnitude.value.detach() / m.length);
    }
    return scaled;
  }

  /// Adds the gradients of A and B; returns dh = scale * dy B, [n, sum of ranks].
  static at::Tensor adapter_backward(const LinearState& state, const at::Tensor& dy, at::Tensor in, bool drop) {
    const LoraGroup& lora = state.call.spec.lora;
    const std::int64_t n = dy.size(0);
    const std::int64_t ranks = state.h.size(1);
    const std::int64_t out = dy.size(1);
    at::Tensor dh = at::empty_like(state.h);
    at::Tensor h = state.h;
    h.mul_(lora.scale);  // its last use
    for (const LoraGroup::Member& m : lora.members) {
      const float* dy_m = dy.data_ptr<float>() + m.out_begin;
      thin_product(n, m.rank, m.out, dy_m, out, 1, m.b.data_ptr<float>(), m.rank, dh.data_ptr<float>() + m.rank_begin,
                   ranks, false);
      thin_product(m.out, m.rank, n, dy_m, 1, out, h.data_ptr<float>() + m.rank_begin, ranks,
                   m.grad_b.data_ptr<float>(), m.rank, true);
    }
    dh.mul_(lora.scale);
    if (drop) in = dropped(in, state.call.spec);
    thin_product(ranks, in.size(1), n, dh.data_ptr<float>(), 1, ranks, in.data_ptr<float>(), in.size(1),
                 lora.grad_a.data_ptr<float>(), in.size(1), true);
    return dh;
  }
};

struct StepState {
  NormSpec spec;
  NormState norm;
  Activation activation = Activation::kSwiglu;
  at::Tensor x;
};

class NormAlone : public Function<NormAlone> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const std::optional<at::Tensor>& leaf,
                            const NormSpec& spec) {
    (void)leaf;
    const at::AutoDispatchBelowADInplaceOrView below;
    StepState state{spec, {}, {}, x};
    at::Tensor y = normed(x, spec, state.norm);
    keep(context, std::move(state));
    return y;
  }
  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const at::AutoDispatchBelowADInplaceOrView below;
    const StepState state = take<StepState>(context);
    return {normed_backward(grads[0].contiguous(), state.x, state.spec, state.norm), at::Tensor(), at::Tensor()};
  }
};

class ActivationAlone : public Function<ActivationAlone> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, Activation activation) {
    const at::AutoDispatchBelowADInplaceOrView below;
    at::Tensor y = activation_of(x, activation);
    keep(context, StepState{{}, {}, activation, x});
    return y;
  }
  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const at::AutoDispatchBelowADInplaceOrView below;
    const StepState state = take<StepState>(context);
    return {activation_backward(grads[0].contiguous(), state.x, state.activation), at::Tensor()};
  }
};

struct HeadNormState {
  at::Tensor x;
  struct Part {
    HeadNorm of;
    at::Tensor inverse;
  };
  std::vector<Part> parts;
  std::int64_t dim = 0;
};

class HeadNorms : public Function<HeadNorms> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const std::optional<at::Tensor>& leaf,
                            HeadNormState state, double eps) {
    (void)leaf;
    const at::AutoDispatchBelowADInplaceOrView below;
    at::Tensor y = x.clone();
    for (HeadNormState::Part& p : state.parts) {
      const auto& [norm, column, heads] = p.of;
      p.inverse = at::empty({x.size(0), heads}, x.options());
      head_norm(x.data_ptr<float>() + column, norm.gamma.value.data_ptr<float>(), static_cast<float>(eps), x.size(0),
                x.size(1), heads, state.dim, y.data_ptr<float>() + column, p.inverse.data_ptr<float>());
    }
    state.x = x;
    keep(context, std::move(state));
    return y;
  }
  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const at::AutoDispatchBelowADInplaceOrView below;
    const HeadNormState state = take<HeadNormState>(context);
    const at::Tensor dy = grads[0].contiguous();
    at::Tensor dx = dy.clone();
    for (const HeadNormState::Part& p : state.parts) {
      const auto& [norm, column, heads] = p.of;
      head_norm_backward(dy.data_ptr<float>() + column, state.x.data_ptr<float>() + column,
                         norm.gamma.value.data_ptr<float>(), p.inverse.data_ptr<float>(), dy.size(0), dy.size(1), heads,
                         state.dim, dx.data_ptr<float>() + column, grad_of(norm.gamma));
    }
    return {dx, at::Tensor(), at::Tensor(), at::Tensor()};
  }
};

struct TableState {
  Slot table;
  at::Tensor ids;
};

class TableRows : public Function<TableRows> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& leaf, const Slot& table,
                            const at::Tensor& ids) {
    const at::AutoDispatchBelowADInplaceOrView below;
    const ProfileScope scope(Kernel::kEmbedding, 0, 2 * static_cast<double>(ids.numel() * leaf.size(1)));
    at::Tensor rows = leaf.detach().index_select(0, ids);
    keep(context, TableState{table, ids});
    return rows;
  }
  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const at::AutoDispatchBelowADInplaceOrView below;
    const TableState state = take<TableState>(context);
    at::Tensor grad = state.table.grad;
    const auto added = static_cast<double>(grads[0].numel());
    const ProfileScope scope(Kernel::kEmbedding, added, 3 * added);
    grad.index_add_(0, state.ids, grads[0]);
    return {at::Tensor(), at::Tensor(), at::Tensor()};
  }
};

struct AttentionState {
  std::shared_ptr<const AttentionPlan> plan;
  at::Tensor q, kv;  // rotated; kv undefined: both are in q
  at::Tensor out, lse;
};

/// Where q, k and v stand in one tensor, or in two.
struct QkvParts {
  float* q = nullptr;
  float* k = nullptr;
  float* v = nullptr;
  std::int64_t ld_q = 0;
  std::int64_t ld_kv = 0;
};
QkvParts parts_of(const AttentionPlan& plan, const at::Tensor& q, const at::Tensor& kv) {
  const std::int64_t kv_width = plan.shape.kv_heads * plan.shape.head_dim;
  QkvParts p;
  p.q = q.data_ptr<float>();
  p.ld_q = q.size(1);
  p.k = kv.defined() ? kv.data_ptr<float>() : p.q + plan.shape.heads * plan.shape.head_dim;
  p.v = p.k + kv_width;
  p.ld_kv = kv.defined() ? kv.size(1) : q.size(1);
  return p;
}

class Attention : public Function<Attention> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& q, const std::optional<at::Tensor>& separate_kv,
                            const std::shared_ptr<const AttentionPlan>& plan) {
    const at::AutoDispatchBelowADInplaceOrView below;
    const at::Tensor kv = separate_kv.value_or(at::Tensor());
    AttentionState state;
    state.plan = plan;
    state.q = at::empty_like(q);
    if (kv.defined()) state.kv = at::empty_like(kv);
    const QuerySet& queries = kv.defined() ? plan->labels : plan->all;
    const AttentionShape& shape = plan->shape;
    const QkvParts from = parts_of(*plan, q, kv);
    const QkvParts to = parts_of(*plan, state.q, state.kv);
    const std::int64_t tokens = plan->tree->size();
    rope(plan->q_rope, plan->turns(), queries.position.data(), queries.size(), from.q, from.ld_q, to.q, to.ld_q, false);
    rope(plan->k_rope, plan->turns(), plan->key_positions().data(), tokens, from.k, from.ld_kv, to.k, to.ld_kv, false);
    const auto v_bytes = static_cast<std::size_t>(shape.kv_heads * shape.head_dim) * sizeof(float);
    for (std::int64_t i = 0; i < tokens; ++i) std::memcpy(to.v + i * to.ld_kv, from.v + i * from.ld_kv, v_bytes);

    at::Tensor out = at::empty({queries.size(), shape.heads * shape.head_dim}, q.options());
    state.lse = at::empty({queries.size(), shape.heads}, q.options());
    decoder::attention(shape, plan->tree->segments, queries, {to.q, to.ld_q, to.k, to.v, to.ld_kv},
                       out.data_ptr<float>(), out.size(1), state.lse.data_ptr<float>());
    // A handle of its own: the output holds the graph, which must not hold the output.
    state.out = out.detach();
    keep(context, std::move(state));
    return out;
  }

  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const at::AutoDispatchBelowADInplaceOrView below;
    const AttentionState state = take<AttentionState>(context);
    const AttentionPlan& plan = *state.plan;
    const AttentionShape& shape = plan.shape;
    const QuerySet& queries = state.kv.defined() ? plan.labels : plan.all;
    const at::Tensor dout = grads[0].contiguous();
    at::Tensor dq = at::empty_like(state.q);
    at::Tensor dkv;
    if (state.kv.defined()) dkv = at::empty_like(state.kv);
    const QkvParts from = parts_of(plan, state.q, state.kv);
    const QkvParts to = parts_of(plan, dq, dkv);
    attention_backward(shape, plan.tree->segments, queries, {from.q, from.ld_q, from.k, from.v, from.ld_kv},
                       state.out.data_ptr<float>(), dout.data_ptr<float>(), state.out.size(1),
                       state.lse.data_ptr<float>(), to.q, to.ld_q, to.k, to.v, to.ld_kv);
    rope(plan.q_rope, plan.turns(), queries.position.data(), queries.size(), to.q, to.ld_q, to.q, to.ld_q, true);
    rope(plan.k_rope, plan.turns(), plan.key_positions().data(), plan.tree->size(), to.k, to.ld_kv, to.k, to.ld_kv,
         true);
    return {dq, dkv, at::Tensor()};
  }
};

std::optional<at::Tensor> leaf_of(const Norm& norm) {
  for (const Slot* slot : {&norm.gamma, &norm.beta}) {
    if (slot->trained()) return slot->value;
  }
  return std::nullopt;
}

/// A parameter that a call has, or none.
std::optional<at::Tensor> leaf_of(const LinearCall& call) {
  const LinearSpec& spec = call.spec;
  if (!spec.lora.empty()) return spec.lora.leaf;
  if (spec.weights->group_grad(spec.layer, spec.group).defined())
    return spec.weights->group_leaf(spec.layer, spec.group);
  if (const Slot& bias = spec.weights->bias(spec.layer, spec.group); bias.trained()) return bias.value;
  if (call.input == Input::kNorm) return leaf_of(call.norm.weights);
  return std::nullopt;
}

class CpuBackend final : public DecoderBackend {
 public:
  // An undefined tensor is no argument of a function; an empty optional is.
  at::Tensor linear(const at::Tensor& x, const std::optional<at::Tensor>& residual,
                    const LinearCall& call) const override {
    return FusedLinear::apply(x, residual, leaf_of(call), call);
  }
  at::Tensor norm(const at::Tensor& x, const NormSpec& spec) const override {
    return NormAlone::apply(x, leaf_of(spec.weights), spec);
  }
  at::Tensor activated(const at::Tensor& x, Activation activation) const override {
    return ActivationAlone::apply(x, activation);
  }
  at::Tensor head_norms(const at::Tensor& qkv, const std::vector<HeadNorm>& norms, double eps,
                        std::int64_t dim) const override {
    HeadNormState state;
    state.dim = dim;
    std::optional<at::Tensor> leaf;
    for (const HeadNorm& of : norms) {
      state.parts.push_back({of, {}});
      if (!leaf) leaf = leaf_of(of.norm);
    }
    return HeadNorms::apply(qkv, leaf, std::move(state), eps);
  }
  at::Tensor table_rows(const Slot& table, std::span<const std::int64_t> ids) const override {
    at::Tensor index = at::empty({static_cast<std::int64_t>(ids.size())}, at::kLong);
    std::copy(ids.begin(), ids.end(), index.data_ptr<std::int64_t>());
    if (!table.trained()) return table.value.index_select(0, index);
    return TableRows::apply(table.value, table, index);
  }
  at::Tensor attention(const at::Tensor& q, const at::Tensor& kv,
                       const std::shared_ptr<const AttentionPlan>& plan) const override {
    return Attention::apply(q, kv.defined() ? std::optional<at::Tensor>(kv) : std::nullopt, plan);
  }
  void turn(const at::Tensor& rows, const RopeShape& shape, const AttentionPlan& plan,
            std::span<const std::int64_t> positions) const override {
    float* x = rows.data_ptr<float>();
    rope(shape, plan.turns(), positions.data(), rows.size(0), x, rows.stride(0), x, rows.stride(0), false);
  }
  at::Tensor attention_over(const AttentionShape& shape, std::span<const TreeSegment> segments, const QuerySet& queries,
                            const at::Tensor& q, const at::Tensor& keys_values) const override {
    const std::int64_t kv_width = shape.kv_heads * shape.head_dim;
    at::Tensor out = at::empty_like(q), lse = at::empty({q.size(0), shape.heads}, q.options());
    const float* keys = keys_values.data_ptr<float>();
    decoder::attention(shape, segments, queries,
                       {q.data_ptr<float>(), q.size(1), keys, keys + kv_width, keys_values.size(1)},
                       out.data_ptr<float>(), out.size(1), lse.data_ptr<float>());
    return out;
  }
  at::Tensor logits(const LossHead& head, const at::Tensor& hidden) const override { return cpu_logits(head, hidden); }
  std::vector<float> losses(const LossHead& head, const at::Tensor& hidden, const PackedTree& tree,
                            std::span<const float> target_weights, at::Tensor* dhidden,
                            std::vector<std::uint8_t>* likeliest) const override {
    return cpu_losses(head, hidden, tree, target_weights, dhidden, likeliest);
  }
};

}  // namespace

const DecoderBackend& cpu_backend() {
  static const CpuBackend kBackend;
  return kBackend;
}

}  // namespace tailor::tune::decoder
