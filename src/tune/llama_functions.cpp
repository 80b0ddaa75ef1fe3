#include "tune/llama_functions.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/csrc/autograd/custom_function.h>

#include <utility>
#include <vector>

#include "core/rng.h"
#include "tune/llama_gemm.h"

namespace tailor::tune::llama {
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

enum class Input : std::uint8_t { kPlain, kRmsNorm, kSwiglu };

struct LinearCall {
  Input input = Input::kPlain;
  at::Tensor norm;
  double eps = 0;
  LinearSpec spec;
};

struct LinearState {
  LinearCall call;
  at::Tensor x;            // as given, before norm or SwiGLU
  at::Tensor inverse_rms;  // kRmsNorm
  at::Tensor h;            // [n, sum of ranks]
  bool has_residual = false;
};

at::Tensor weight_of(const LinearSpec& spec) {
  const at::Tensor w = spec.weights->group(spec.layer, spec.group);
  return spec.out_end < 0 ? w : w.narrow(0, spec.out_begin, spec.out_end - spec.out_begin);
}

/// The modules of a call with their adapters; empty where the fast products do not suit.
std::vector<ProductPart> parts_of(const LinearSpec& spec) {
  std::vector<ProductPart> parts;
  std::int64_t begin = 0;
  for (const LlamaModule module : modules_of(spec.group)) {
    const FrozenMatrix w = spec.weights->matrix(spec.layer, module);
    const std::int64_t end = begin + w.rows;
    if (!fast_gemm_suits(w)) return {};
    if (begin >= spec.out_begin && (spec.out_end < 0 || end <= spec.out_end)) {
      ProductPart part{w};
      for (const LoraGroup::Member& m : spec.lora.members) {
        if (m.out_begin + spec.out_begin != begin) continue;
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
  const std::uint64_t stream =
      Rng::mix(Rng::mix(static_cast<std::uint64_t>(spec.dropout.step) * 0x10001ULL +
                        static_cast<std::uint64_t>(spec.dropout.micro_batch)) ^
               (static_cast<std::uint64_t>(spec.layer) * kLinearGroups + static_cast<std::uint64_t>(spec.group)));
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

at::Tensor input_of(const LinearCall& call, const at::Tensor& x, at::Tensor& inverse_rms) {
  switch (call.input) {
    case Input::kPlain:
      return x;
    case Input::kRmsNorm: {
      at::Tensor y = at::empty_like(x);
      const float* w = call.norm.data_ptr<float>();
      if (inverse_rms.defined()) {
        rms_norm_again(x.data_ptr<float>(), w, inverse_rms.data_ptr<float>(), x.size(0), x.size(1),
                       y.data_ptr<float>());
      } else {
        inverse_rms = at::empty({x.size(0)}, x.options());
        rms_norm(x.data_ptr<float>(), w, static_cast<float>(call.eps), x.size(0), x.size(1), y.data_ptr<float>(),
                 inverse_rms.data_ptr<float>());
      }
      return y;
    }
    case Input::kSwiglu:
      break;
  }
  at::Tensor h = at::empty({x.size(0), x.size(1) / 2}, x.options());
  swiglu(x.data_ptr<float>(), x.size(0), h.size(1), h.data_ptr<float>());
  return h;
}

at::Tensor input_backward(const LinearState& state, const at::Tensor& din) {
  const at::Tensor& x = state.x;
  switch (state.call.input) {
    case Input::kPlain:
      return din;
    case Input::kRmsNorm: {
      at::Tensor dx = at::empty_like(x);
      rms_norm_backward(din.data_ptr<float>(), x.data_ptr<float>(), state.call.norm.data_ptr<float>(),
                        state.inverse_rms.data_ptr<float>(), x.size(0), x.size(1), dx.data_ptr<float>(), nullptr);
      return dx;
    }
    case Input::kSwiglu:
      break;
  }
  at::Tensor dx = at::empty_like(x);
  swiglu_backward(din.data_ptr<float>(), x.data_ptr<float>(), x.size(0), din.size(1), dx.data_ptr<float>());
  return dx;
}

class FusedLinear : public Function<FusedLinear> {
 public:
  /// `leaf` is one of the adapter's parameters, or undefined: it makes autograd come back here even where x itself
  /// needs no gradient.
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const std::optional<at::Tensor>& residual,
                            const std::optional<at::Tensor>& leaf, const LinearCall& call) {
    (void)leaf;
    const at::AutoDispatchBelowADInplaceOrView below;
    const LinearSpec& spec = call.spec;
    LinearState state{call, x, {}, {}, residual.has_value()};
    const at::Tensor in = input_of(call, x, state.inverse_rms);
    if (!spec.lora.empty()) {
      const bool drop = spec.training && spec.lora.dropout > 0;
      state.h = low_rank(drop ? dropped(in, spec) : in, spec.lora.a);
    }
    at::Tensor y;
    if (const std::vector<ProductPart> parts = parts_of(spec); !parts.empty()) {
      std::int64_t width = 0;
      for (const ProductPart& p : parts) width += p.w.rows;
      y = at::empty({in.size(0), width}, in.options());
      frozen_product(parts, in.data_ptr<float>(), in.size(1), in.size(0),
                     spec.lora.empty() ? nullptr : state.h.data_ptr<float>(), spec.lora.empty() ? 0 : state.h.size(1),
                     static_cast<float>(spec.lora.scale), residual ? residual->data_ptr<float>() : nullptr,
                     y.data_ptr<float>(), width);
    } else {
      const at::Tensor wt = weight_of(spec).t();
      y = residual ? at::addmm(*residual, in, wt) : at::mm(in, wt);
      for (const LoraGroup::Member& m : spec.lora.members) {
        y.narrow(1, m.out_begin, m.out).addmm_(state.h.narrow(1, m.rank_begin, m.rank), m.b.t(), 1.0, spec.lora.scale);
      }
    }
    keep(context, std::move(state));
    return y;
  }

  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const at::AutoDispatchBelowADInplaceOrView below;
    const bool need_x = context->needs_input_grad(0);
    const LinearState state = take<LinearState>(context);
    const bool need_residual = state.has_residual && context->needs_input_grad(1);
    const LinearSpec& spec = state.call.spec;
    const at::Tensor dy = grads[0].contiguous();
    const bool drop = spec.training && spec.lora.dropout > 0;
    const at::Tensor dh = spec.lora.empty() ? at::Tensor() : adapter_backward(state, dy, drop);
    at::Tensor din;
    if (need_x) {
      const bool fused = dh.defined() && !drop;  // the adapter's part of dx rides along
      if (const std::vector<ProductPart> parts = parts_of(spec); !parts.empty()) {
        din = at::empty({dy.size(0), parts.front().w.columns}, dy.options());
        frozen_product_backward(parts, dy.data_ptr<float>(), dy.size(1), dy.size(0),
                                fused ? dh.data_ptr<float>() : nullptr, fused ? dh.size(1) : 0,
                                fused ? spec.lora.a.data_ptr<float>() : nullptr, din.data_ptr<float>(), din.size(1));
      } else {
        din = at::mm(dy, weight_of(spec));
        if (fused) din.addmm_(dh, spec.lora.a);
      }
      if (dh.defined() && drop) din.add_(dropped(at::mm(dh, spec.lora.a), spec));
    }
    at::Tensor dx;
    if (need_x) dx = input_backward(state, din);
    return {dx, need_residual ? dy : at::Tensor(), at::Tensor(), at::Tensor()};
  }

 private:
  /// Adds the gradients of A and B; returns dh = scale * dy B, [n, sum of ranks].
  static at::Tensor adapter_backward(const LinearState& state, const at::Tensor& dy, bool drop) {
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
    at::Tensor inverse_rms = state.inverse_rms;
    at::Tensor in = input_of(state.call, state.x, inverse_rms);
    if (drop) in = dropped(in, state.call.spec);
    thin_product(ranks, in.size(1), n, dh.data_ptr<float>(), 1, ranks, in.data_ptr<float>(), in.size(1),
                 lora.grad_a.data_ptr<float>(), in.size(1), true);
    return dh;
  }
};

struct AttentionState {
  std::shared_ptr<const AttentionPlan> plan;
  at::Tensor q, kv;  // rotated; kv undefined: both are in q
  at::Tensor out, lse;
};

/// Where q, k and v stand in one tensor, or in two.
struct Parts {
  float* q = nullptr;
  float* k = nullptr;
  float* v = nullptr;
  std::int64_t ld_q = 0;
  std::int64_t ld_kv = 0;
};
Parts parts_of(const AttentionPlan& plan, const at::Tensor& q, const at::Tensor& kv) {
  const std::int64_t kv_width = plan.shape.kv_heads * plan.shape.head_dim;
  Parts p;
  p.q = q.data_ptr<float>();
  p.ld_q = q.size(1);
  p.k = kv.defined() ? kv.data_ptr<float>() : p.q + plan.shape.heads * plan.shape.head_dim;
  p.v = p.k + kv_width;
  p.ld_kv = kv.defined() ? kv.size(1) : q.size(1);
  return p;
}

class RopeAttention : public Function<RopeAttention> {
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
    const Parts from = parts_of(*plan, q, kv);
    const Parts to = parts_of(*plan, state.q, state.kv);
    const std::int64_t tokens = plan->tree->size();
    rope({shape.heads, shape.head_dim, plan->rotary}, plan->rope_table, queries.position.data(), queries.size(), from.q,
         from.ld_q, to.q, to.ld_q, false);
    rope({shape.kv_heads, shape.head_dim, plan->rotary}, plan->rope_table, plan->key_positions(), tokens, from.k,
         from.ld_kv, to.k, to.ld_kv, false);
    const auto v_bytes = static_cast<std::size_t>(shape.kv_heads * shape.head_dim) * sizeof(float);
    for (std::int64_t i = 0; i < tokens; ++i) std::memcpy(to.v + i * to.ld_kv, from.v + i * from.ld_kv, v_bytes);

    at::Tensor out = at::empty({queries.size(), shape.heads * shape.head_dim}, q.options());
    state.lse = at::empty({queries.size(), shape.heads}, q.options());
    attention(shape, plan->tree->segments, queries, {to.q, to.ld_q, to.k, to.v, to.ld_kv}, out.data_ptr<float>(),
              out.size(1), state.lse.data_ptr<float>());
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
    const Parts from = parts_of(plan, state.q, state.kv);
    const Parts to = parts_of(plan, dq, dkv);
    attention_backward(shape, plan.tree->segments, queries, {from.q, from.ld_q, from.k, from.v, from.ld_kv},
                       state.out.data_ptr<float>(), dout.data_ptr<float>(), state.out.size(1),
                       state.lse.data_ptr<float>(), to.q, to.ld_q, to.k, to.v, to.ld_kv);
    rope({shape.heads, shape.head_dim, plan.rotary}, plan.rope_table, queries.position.data(), queries.size(), to.q,
         to.ld_q, to.q, to.ld_q, true);
    rope({shape.kv_heads, shape.head_dim, plan.rotary}, plan.rope_table, plan.key_positions(), plan.tree->size(), to.k,
         to.ld_kv, to.k, to.ld_kv, true);
    return {dq, dkv, at::Tensor()};
  }
};

// An undefined tensor is no argument of a function; an empty optional is.
at::Tensor run(const at::Tensor& x, const std::optional<at::Tensor>& residual, const LinearCall& call) {
  std::optional<at::Tensor> leaf;
  if (!call.spec.lora.empty()) leaf = call.spec.lora.leaf;
  return FusedLinear::apply(x, residual, leaf, call);
}

}  // namespace

at::Tensor norm_linear(const at::Tensor& x, const at::Tensor& norm, double eps, const LinearSpec& spec) {
  return run(x, std::nullopt, {Input::kRmsNorm, norm, eps, spec});
}
at::Tensor linear_add(const at::Tensor& x, const at::Tensor& residual, const LinearSpec& spec) {
  return run(x, residual, {Input::kPlain, {}, 0, spec});
}
at::Tensor swiglu_linear_add(const at::Tensor& gate_up, const at::Tensor& residual, const LinearSpec& spec) {
  return run(gate_up, residual, {Input::kSwiglu, {}, 0, spec});
}
at::Tensor rope_attention(const at::Tensor& qkv, const std::shared_ptr<const AttentionPlan>& plan) {
  return RopeAttention::apply(qkv, std::optional<at::Tensor>(), plan);
}
at::Tensor rope_attention_at_labels(const at::Tensor& q, const at::Tensor& kv,
                                    const std::shared_ptr<const AttentionPlan>& plan) {
  return RopeAttention::apply(q, std::optional<at::Tensor>(kv), plan);
}

}  // namespace tailor::tune::llama
