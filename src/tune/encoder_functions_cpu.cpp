#include "tune/encoder_backend.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/add.h>
#include <ATen/ops/addcmul.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/sum.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <ggml.h>
#include <torch/csrc/autograd/custom_function.h>

#include <optional>

#include "tune/frozen_gemm.h"

#include "tune/profile.h"

namespace tailor::tune {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;

float* floats(const at::Tensor& t) {
  return t.defined() ? t.data_ptr<float>() : nullptr;
}

/// An undefined tensor is no argument of a function, an empty optional is.
using Maybe = std::optional<at::Tensor>;

/// Autograd sees leaves only to learn that a node is needed; where the slot is frozen it sees nothing.
Maybe leaf(const Slot& slot) {
  return slot.trained() ? Maybe(slot.value) : std::nullopt;
}

template <typename T>
void keep(AutogradContext* ctx, const char* name, const T* pointer) {
  ctx->saved_data[name] = static_cast<std::int64_t>(reinterpret_cast<std::intptr_t>(pointer));
}
template <typename T>
const T& kept(AutogradContext* ctx, const char* name) {
  return *reinterpret_cast<const T*>(static_cast<std::intptr_t>(ctx->saved_data[name].toInt()));
}

void keep_site(AutogradContext* ctx, const DropoutSite& site) {
  ctx->saved_data["seed"] = static_cast<std::int64_t>(site.seed);
  ctx->saved_data["p"] = site.probability;
}
DropoutSite kept_site(AutogradContext* ctx) {
  return {static_cast<std::uint64_t>(ctx->saved_data["seed"].toInt()), ctx->saved_data["p"].toDouble()};
}

/// Every Function below runs its ATen calls under the autograd dispatch key: they are ours to differentiate.
using Below = at::AutoDispatchBelowADInplaceOrView;

struct EmbedFunction : Function<EmbedFunction> {
  static at::Tensor forward(AutogradContext* ctx, const Maybe&, const Maybe&, const Maybe&, const EmbeddingSpec* spec,
                            const PackedRows* rows) {
    const Below below;
    keep(ctx, "spec", spec);
    keep(ctx, "rows", rows);
    const std::int64_t d = spec->tokens.value.size(1);
    at::Tensor out = at::empty({rows->tokens(), d}, spec->tokens.value.options());
    embed_forward(floats(spec->tokens.value), rows->ids, floats(spec->positions.value), rows->places,
                  floats(spec->types.value), rows->types, d, floats(out));
    return out;
  }
  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const auto& spec = kept<EmbeddingSpec>(ctx, "spec");
    const auto& rows = kept<PackedRows>(ctx, "rows");
    const at::Tensor dy = grads[0].contiguous();
    embed_backward(floats(dy), rows.ids, rows.places, rows.types, spec.tokens.value.size(1), floats(spec.tokens.grad),
                   floats(spec.positions.grad), floats(spec.types.grad));
    return variable_list(5);
  }
};

/// A frozen weight that is kept as bf16 is unpacked a panel at a time into the cache.
decoder::ProductPart packed(const at::Tensor& weight) {
  const auto row_bytes = static_cast<std::size_t>(weight.size(1)) * weight.element_size();
  return {
      {GGML_TYPE_BF16, static_cast<const char*>(weight.const_data_ptr()), row_bytes, weight.size(0), weight.size(1)}};
}

/// x W^T (+ bias, which may be undefined).
at::Tensor product(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) {
  if (weight.scalar_type() == at::kFloat) {
    const ProfileScope scope = ProfileScope::product(Kernel::kProduct, x.size(0), weight.size(0), x.size(1));
    return bias.defined() ? at::addmm(bias, x, weight.t()) : at::mm(x, weight.t());
  }
  const decoder::ProductPart part = packed(weight);
  if (!decoder::fast_gemm_suits(part.w)) return product(x, weight.to(at::kFloat), bias);
  at::Tensor y = at::empty({x.size(0), weight.size(0)}, x.options());
  if (bias.defined()) y.copy_(bias.expand_as(y));
  decoder::frozen_product({&part, 1}, floats(x), x.size(1), x.size(0), nullptr, 0, 1,
                          bias.defined() ? floats(y) : nullptr, floats(y), y.size(1));
  return y;
}

/// dy W.
at::Tensor product_backward(const at::Tensor& dy, const at::Tensor& weight) {
  if (weight.scalar_type() == at::kFloat) {
    const ProfileScope scope = ProfileScope::product(Kernel::kProductBackward, dy.size(0), weight.size(1), dy.size(1));
    return at::mm(dy, weight);
  }
  const decoder::ProductPart part = packed(weight);
  if (!decoder::fast_gemm_suits(part.w)) return at::mm(dy, weight.to(at::kFloat));
  at::Tensor dx = at::empty({dy.size(0), weight.size(1)}, dy.options());
  decoder::frozen_product_backward({&part, 1}, floats(dy), dy.size(1), dy.size(0), nullptr, 0, nullptr, floats(dx),
                                   dx.size(1));
  return dx;
}

bool has_magnitudes(const LinearSpec& spec) {
  return !spec.parts.empty() && spec.parts.front().magnitude.value.defined();
}

/// Length of each row of  W + scale B A  of one part.
at::Tensor updated_lengths(const LinearSpec& spec, std::size_t i) {
  const LoraPart& part = spec.parts[i];
  const std::int64_t width = part.b.value.size(0), rank = part.b.value.size(1);
  const at::Tensor a = spec.lora_a.value.narrow(0, static_cast<std::int64_t>(i) * rank, rank);
  const at::Tensor updated =
      at::addmm(spec.weight.value.narrow(0, part.column, width).to(at::kFloat), part.b.value, a, 1, spec.lora_scale);
  return at::linalg_vector_norm(updated, 2, at::IntArrayRef{1});
}

struct LinearFunction : Function<LinearFunction> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x, const Maybe&, const Maybe&, const Maybe&,
                            const LinearSpec* spec, std::int64_t seed) {
    const Below below;
    keep(ctx, "spec", spec);
    ctx->saved_data["seed"] = seed;
    const bool dora = has_magnitudes(*spec);  // the bias is then added after the rescaling
    at::Tensor y = product(x, spec->weight.value, dora ? at::Tensor() : spec->bias.value);
    at::Tensor h, z, gain;
    if (spec->lora_a.value.defined()) {
      at::Tensor seen = x;
      if (spec->lora_dropout > 0) {
        seen = at::empty_like(x);
        apply_dropout(floats(x), x.numel(), {static_cast<std::uint64_t>(seed), spec->lora_dropout}, floats(seen));
      }
      const ProfileScope scope =
          ProfileScope::product(Kernel::kAdapterProduct, x.size(0), x.size(1) + y.size(1), spec->lora_a.value.size(0));
      h = at::mm(seen, spec->lora_a.value.t());
      for (std::size_t i = 0; i < spec->parts.size(); ++i) {
        const at::Tensor& b = spec->parts[i].b.value;
        const at::Tensor hi = h.narrow(1, static_cast<std::int64_t>(i) * b.size(1), b.size(1));
        y.narrow(1, spec->parts[i].column, b.size(0)).addmm_(hi, b.t(), 1, spec->lora_scale);
      }
    }
    if (dora) {
      z = y;
      gain = at::ones({y.size(1)}, y.options());
      for (std::size_t i = 0; i < spec->parts.size(); ++i) {
        const LoraPart& part = spec->parts[i];
        gain.narrow(0, part.column, part.b.value.size(0)).copy_(part.magnitude.value).div_(updated_lengths(*spec, i));
      }
      y = spec->bias.value.defined() ? at::addcmul(spec->bias.value, z, gain) : at::mul(z, gain);
    }
    ctx->save_for_backward({x, h, z, gain});
    return y;
  }
  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const auto& spec = kept<LinearSpec>(ctx, "spec");
    const auto saved = ctx->get_saved_variables();
    const at::Tensor& x = saved[0];
    const at::Tensor& h = saved[1];
    at::Tensor dy = grads[0].contiguous();
    const bool need_dx = ctx->needs_input_grad(0);

    if (spec.bias.trained()) add_column_sums(floats(dy), dy.size(0), dy.size(1), dy.size(1), floats(spec.bias.grad));
    if (const at::Tensor& z = saved[2]; z.defined()) {
      const at::Tensor& gain = saved[3];
      const at::Tensor sums = at::sum(dy * z, 0);
      for (const LoraPart& part : spec.parts) {
        if (!part.magnitude.trained()) continue;
        const std::int64_t width = part.b.value.size(0);
        part.magnitude.grad.add_(sums.narrow(0, part.column, width) * gain.narrow(0, part.column, width) /
                                 part.magnitude.value);  // gain / m = 1 / |V|
      }
      dy = dy * gain;
    }
    if (spec.weight.trained()) {
      const ProfileScope scope = ProfileScope::product(Kernel::kWeightGradient, dy.size(1), x.size(1), x.size(0));
      spec.weight.grad.addmm_(dy.t(), x);
    }
    at::Tensor dx;
    if (need_dx) dx = product_backward(dy, spec.weight.value);
    if (spec.lora_a.value.defined()) {
      const ProfileScope scope = ProfileScope::product(Kernel::kAdapterProduct, 2 * x.size(0), x.size(1) + dy.size(1),
                                                       spec.lora_a.value.size(0));
      at::Tensor dh = at::empty_like(h);
      for (std::size_t i = 0; i < spec.parts.size(); ++i) {
        const LoraPart& part = spec.parts[i];
        const std::int64_t rank = part.b.value.size(1);
        const at::Tensor dyi = dy.narrow(1, part.column, part.b.value.size(0));
        const at::Tensor hi = h.narrow(1, static_cast<std::int64_t>(i) * rank, rank);
        at::Tensor dhi = dh.narrow(1, static_cast<std::int64_t>(i) * rank, rank);
        dhi.addmm_(dyi, part.b.value, 0, spec.lora_scale);
        // (h^T dy)^T is twice as fast as dy^T h where the output is wide.
        if (part.b.trained()) part.b.grad.t().addmm_(hi.t(), dyi, 1, spec.lora_scale);
      }
      const DropoutSite site{static_cast<std::uint64_t>(ctx->saved_data["seed"].toInt()), spec.lora_dropout};
      if (spec.lora_a.trained()) {
        at::Tensor seen = x;
        if (spec.lora_dropout > 0) {
          seen = at::empty_like(x);
          apply_dropout(floats(x), x.numel(), site, floats(seen));
        }
        spec.lora_a.grad.addmm_(dh.t(), seen);
      }
      if (need_dx && spec.lora_dropout > 0) {
        at::Tensor through = at::mm(dh, spec.lora_a.value);
        apply_dropout(floats(through), through.numel(), site, floats(through));
        dx.add_(through);
      } else if (need_dx) {
        dx.addmm_(dh, spec.lora_a.value);
      }
    }
    variable_list out(6);
    out[0] = dx;
    return out;
  }
};

AttentionView view_of(const AttentionSpec& spec) {
  return {spec.reach, floats(spec.rotary)};
}

struct AttentionFunction : Function<AttentionFunction> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& qkv, const PackedRows* rows, std::int64_t heads,
                            const AttentionSpec* spec) {
    const Below below;
    ctx->save_for_backward({qkv});
    keep(ctx, "rows", rows);
    keep(ctx, "spec", spec);
    ctx->saved_data["heads"] = heads;
    const std::int64_t d = qkv.size(1) / 3;
    at::Tensor out = at::empty({qkv.size(0), d}, qkv.options());
    attention_forward(floats(qkv), rows->offsets, heads, d, floats(out), view_of(*spec));
    return out;
  }
  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const at::Tensor qkv = ctx->get_saved_variables()[0];
    const at::Tensor dy = grads[0].contiguous();
    at::Tensor dqkv = at::empty_like(qkv);
    attention_backward(floats(dy), floats(qkv), kept<PackedRows>(ctx, "rows").offsets, ctx->saved_data["heads"].toInt(),
                       qkv.size(1) / 3, floats(dqkv), view_of(kept<AttentionSpec>(ctx, "spec")));
    variable_list out(4);
    out[0] = dqkv;
    return out;
  }
};

struct GatedGeluFunction : Function<GatedGeluFunction> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& u) {
    const Below below;
    ctx->save_for_backward({u});
    at::Tensor y = at::empty({u.size(0), u.size(1) / 2}, u.options());
    gated_gelu_forward(floats(u), y.size(0), y.size(1), floats(y));
    return y;
  }
  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const at::Tensor u = ctx->get_saved_variables()[0];
    const at::Tensor dy = grads[0].contiguous();
    at::Tensor du = at::empty_like(u);
    gated_gelu_backward(floats(dy), floats(u), dy.size(0), dy.size(1), floats(du));
    return {du};
  }
};

struct GeluFunction : Function<GeluFunction> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& u, const Maybe&, const Slot* bias) {
    const Below below;
    ctx->save_for_backward({u});
    keep(ctx, "bias", bias);
    at::Tensor y = at::empty_like(u);
    gelu_forward(floats(u), floats(bias->value), u.size(0), u.size(1), floats(y));
    return y;
  }
  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const at::Tensor u = ctx->get_saved_variables()[0];
    const auto& bias = kept<Slot>(ctx, "bias");
    const at::Tensor dy = grads[0].contiguous();
    at::Tensor du = at::empty_like(u);
    gelu_backward(floats(dy), floats(u), floats(bias.value), u.size(0), u.size(1), floats(du));
    if (bias.trained()) add_column_sums(floats(du), u.size(0), u.size(1), u.size(1), floats(bias.grad));
    variable_list out(3);
    out[0] = du;
    return out;
  }
};

struct ReluFunction : Function<ReluFunction> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& u, const Maybe&, const Slot* bias) {
    const Below below;
    keep(ctx, "bias", bias);
    const at::Tensor y = at::add(u, bias->value).relu_();
    ctx->save_for_backward({y});
    return y;
  }
  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const at::Tensor y = ctx->get_saved_variables()[0];
    const auto& bias = kept<Slot>(ctx, "bias");
    const at::Tensor du = at::where(y > 0, grads[0], at::zeros({}, y.options()));
    if (bias.trained()) add_column_sums(floats(du), du.size(0), du.size(1), du.size(1), floats(bias.grad));
    variable_list out(3);
    out[0] = du;
    return out;
  }
};

struct ScaleFunction : Function<ScaleFunction> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x, const Maybe&, const Slot* scale,
                            std::int64_t column) {
    const Below below;
    ctx->save_for_backward({x});
    keep(ctx, "scale", scale);
    ctx->saved_data["column"] = column;
    at::Tensor y = x.clone();
    y.narrow(1, column, scale->value.numel()).mul_(scale->value);
    return y;
  }
  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const at::Tensor x = ctx->get_saved_variables()[0];
    const auto& scale = kept<Slot>(ctx, "scale");
    const std::int64_t column = ctx->saved_data["column"].toInt(), width = scale.value.numel();
    if (scale.trained()) scale.grad.add_(at::sum(grads[0].narrow(1, column, width) * x.narrow(1, column, width), 0));
    variable_list out(4);
    if (ctx->needs_input_grad(0)) {
      out[0] = grads[0].clone();
      out[0].narrow(1, column, width).mul_(scale.value);
    }
    return out;
  }
};

struct AddNormFunction : Function<AddNormFunction> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& h, const Maybe& residual, const Maybe&,
                            const Maybe&, const Maybe&, const NormSpec* spec, std::int64_t seed, double probability) {
    const Below below;
    const DropoutSite site{static_cast<std::uint64_t>(seed), probability};
    keep(ctx, "spec", spec);
    keep_site(ctx, site);
    ctx->saved_data["residual"] = residual.has_value();
    at::Tensor y = at::empty_like(h);
    at::Tensor rstd = at::empty({h.size(0)}, h.options());
    add_norm_forward(floats(h), floats(spec->bias.value), residual ? floats(*residual) : nullptr,
                     floats(spec->gamma.value), floats(spec->beta.value), h.size(0), h.size(1), spec->eps, site,
                     floats(y), floats(rstd));
    // A detached handle: autograd must not take h for an input that was changed behind its back.
    ctx->saved_data["x_hat"] = h.detach();
    ctx->saved_data["rstd"] = rstd;
    return y;
  }
  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const auto& spec = kept<NormSpec>(ctx, "spec");
    const DropoutSite site = kept_site(ctx);
    const at::Tensor x_hat = ctx->saved_data["x_hat"].toTensor();
    const at::Tensor rstd = ctx->saved_data["rstd"].toTensor();
    const at::Tensor dy = grads[0].contiguous();
    at::Tensor ds = at::empty_like(dy);
    at::Tensor dh;
    if (site.probability > 0) dh = at::empty_like(dy);
    add_norm_backward(floats(dy), floats(x_hat), floats(rstd), floats(spec.gamma.value), dy.size(0), dy.size(1), site,
                      floats(ds), floats(dh), floats(spec.gamma.grad), floats(spec.beta.grad), floats(spec.bias.grad));
    variable_list out(8);
    if (ctx->needs_input_grad(0)) out[0] = dh.defined() ? dh : ds;
    // needs_input_grad() counts the tensors that are there.
    if (ctx->saved_data["residual"].toBool() && ctx->needs_input_grad(1)) out[1] = ds;
    return out;
  }
};

struct MeanPoolFunction : Function<MeanPoolFunction> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x, const PackedRows* rows) {
    const Below below;
    keep(ctx, "rows", rows);
    at::Tensor out = at::empty({rows->rows(), x.size(1)}, x.options());
    mean_pool_forward(floats(x), rows->offsets, x.size(1), floats(out));
    return out;
  }
  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const auto& rows = kept<PackedRows>(ctx, "rows");
    const at::Tensor dy = grads[0].contiguous();
    at::Tensor dx = at::empty({rows.tokens(), dy.size(1)}, dy.options());
    mean_pool_backward(floats(dy), rows.offsets, dy.size(1), floats(dx));
    variable_list out(2);
    out[0] = dx;
    return out;
  }
};

struct DropoutFunction : Function<DropoutFunction> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x, std::int64_t seed, double probability) {
    const Below below;
    const DropoutSite site{static_cast<std::uint64_t>(seed), probability};
    keep_site(ctx, site);
    at::Tensor y = at::empty_like(x);
    apply_dropout(floats(x), x.numel(), site, floats(y));
    return y;
  }
  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const at::Tensor dy = grads[0].contiguous();
    variable_list out(3);
    out[0] = at::empty_like(dy);
    apply_dropout(floats(dy), dy.numel(), kept_site(ctx), floats(out[0]));
    return out;
  }
};

class CpuEncoder final : public EncoderBackend {
 public:
  at::Tensor embed(const EmbeddingSpec& spec, const PackedRows& rows) const override {
    return EmbedFunction::apply(leaf(spec.tokens), leaf(spec.positions), leaf(spec.types), &spec, &rows);
  }
  at::Tensor linear(const at::Tensor& x, const LinearSpec& spec, std::uint64_t seed) const override {
    return LinearFunction::apply(x, leaf(spec.weight), leaf(spec.bias), leaf(spec.lora_a), &spec,
                                 static_cast<std::int64_t>(seed));
  }
  at::Tensor attention(const at::Tensor& qkv, const PackedRows& rows, std::int64_t heads,
                       const AttentionSpec& spec) const override {
    return AttentionFunction::apply(qkv, &rows, heads, &spec);
  }
  at::Tensor gated_gelu(const at::Tensor& u) const override { return GatedGeluFunction::apply(u); }
  at::Tensor gelu(const at::Tensor& u, const Slot& bias) const override {
    return GeluFunction::apply(u, leaf(bias), &bias);
  }
  at::Tensor relu(const at::Tensor& u, const Slot& bias) const override {
    return ReluFunction::apply(u, leaf(bias), &bias);
  }
  at::Tensor scale_columns(const at::Tensor& x, const Slot& scale, std::int64_t column) const override {
    return ScaleFunction::apply(x, leaf(scale), &scale, column);
  }
  at::Tensor add_norm(at::Tensor h, const at::Tensor& residual, const NormSpec& spec,
                      const DropoutSite& site) const override {
    return AddNormFunction::apply(h, residual.defined() ? Maybe(residual) : std::nullopt, leaf(spec.gamma),
                                  leaf(spec.beta), leaf(spec.bias), &spec, static_cast<std::int64_t>(site.seed),
                                  site.probability);
  }
  at::Tensor mean_pool(const at::Tensor& x, const PackedRows& rows) const override {
    return MeanPoolFunction::apply(x, &rows);
  }
  at::Tensor dropout(const at::Tensor& x, const DropoutSite& site) const override {
    return DropoutFunction::apply(x, static_cast<std::int64_t>(site.seed), site.probability);
  }
};

}  // namespace

const EncoderBackend& encoder_cpu_backend() {
  static const CpuEncoder kBackend;
  return kBackend;
}

}  // namespace tailor::tune
