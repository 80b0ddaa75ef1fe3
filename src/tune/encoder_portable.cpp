// The steps of an encoder in plain ATen, differentiated by autograd: for every device, and the reference of the
// kernels.

#include <ATen/ATen.h>

#include <algorithm>
#include <vector>

#include "tune/encoder_backend.h"
#include "tune/portable.h"

namespace tailor::tune {

/// Rows beside one another, as long as the longest. Legend: R rows, L longest, T tokens.
struct PortableRows {
  at::Tensor places;  // [T] in their rows
  at::Tensor padded;  // [R * L] the token; T: none
  at::Tensor packed;  // [T] where in `padded` the token is
  at::Tensor rows;    // [T] the row
  at::Tensor counts;  // [R, 1] tokens, f32
};

namespace {

using portable::index_of;
using portable::leaf;

const PortableRows& portable_rows(const PackedRows& rows, const at::Device& device) {
  if (rows.portable) return *rows.portable;
  std::int64_t longest = 0;
  for (std::int64_t r = 0; r < rows.rows(); ++r)
    longest =
        std::max(longest, rows.offsets[static_cast<std::size_t>(r) + 1] - rows.offsets[static_cast<std::size_t>(r)]);
  std::vector<std::int64_t> padded(static_cast<std::size_t>(rows.rows() * longest), rows.tokens()), packed, of;
  std::vector<float> counts;
  for (std::int64_t r = 0; r < rows.rows(); ++r) {
    const std::int64_t begin = rows.offsets[static_cast<std::size_t>(r)];
    const std::int64_t n = rows.offsets[static_cast<std::size_t>(r) + 1] - begin;
    counts.push_back(static_cast<float>(n));
    for (std::int64_t i = 0; i < n; ++i) {
      padded[static_cast<std::size_t>(r * longest + i)] = begin + i;
      packed.push_back(r * longest + i);
      of.push_back(r);
    }
  }
  auto made = std::make_shared<PortableRows>();
  made->places = index_of(std::span<const std::int32_t>(rows.places), device);
  made->padded = index_of(std::span<const std::int64_t>(padded), device);
  made->packed = index_of(std::span<const std::int64_t>(packed), device);
  made->rows = index_of(std::span<const std::int64_t>(of), device);
  made->counts = at::tensor(counts, at::kFloat).unsqueeze(1).to(device);
  rows.portable = made;
  return *rows.portable;
}

at::Tensor dropped(const at::Tensor& x, const DropoutSite& site) {
  if (site.probability <= 0) return x;
  return x * portable::dropout_factors(site, x.numel(), x.device()).view(x.sizes());
}

/// x W^T of a weight that may be kept as bf16.
at::Tensor product(const at::Tensor& x, const Slot& weight) {
  if (weight.trained()) return at::linear(x, leaf(weight));
  return portable::frozen_product(x, [value = weight.value] { return value.to(at::kFloat); });
}

/// Pairs (c, c + e / 2) of [T, heads, e] turned; `angles` [T, e]: cosine and sine of pair i at 2 i and 2 i + 1.
at::Tensor turned(const at::Tensor& x, const at::Tensor& angles) {
  const std::int64_t e = x.size(2), half = e / 2;
  const at::Tensor cos = angles.slice(1, 0, e, 2).unsqueeze(1), sin = angles.slice(1, 1, e, 2).unsqueeze(1);
  const at::Tensor a = x.narrow(2, 0, half), b = x.narrow(2, half, half);
  return at::cat({a * cos - b * sin, b * cos + a * sin}, 2);
}

/// bool [R or 1, 1, L, L]: the keys that a query sees. A place without a token sees the row's first one, so that
/// nothing is divided by nothing.
at::Tensor seen_keys(const PortableRows& p, std::int64_t longest, std::int64_t tokens, std::int64_t reach) {
  const at::Tensor there = p.padded.lt(tokens).view({-1, 1, 1, longest});
  if (reach < 0) return there.expand({-1, 1, longest, longest});
  const at::Tensor place = at::arange(longest, p.padded.options());
  const at::Tensor near = at::abs(place.unsqueeze(0) - place.unsqueeze(1)).le(reach);
  const at::Tensor first = place.eq(0).view({1, 1, 1, longest});
  return there.logical_and(near).logical_or(there.transpose(2, 3).logical_not().logical_and(first));
}

class PortableEncoder final : public EncoderBackend {
 public:
  at::Tensor embed(const EmbeddingSpec& spec, const PackedRows& rows) const override {
    const at::Device device = spec.tokens.value.device();
    at::Tensor x = leaf(spec.tokens).index_select(0, index_of(std::span<const std::int32_t>(rows.ids), device));
    if (spec.positions.value.defined())
      x = x + leaf(spec.positions).index_select(0, portable_rows(rows, device).places);
    if (!spec.types.value.defined()) return x;
    std::vector<std::int64_t> types(rows.types.begin(), rows.types.end());
    types.resize(static_cast<std::size_t>(rows.tokens()), 0);
    return x + leaf(spec.types).index_select(0, index_of(std::span<const std::int64_t>(types), device));
  }

  at::Tensor linear(const at::Tensor& x, const LinearSpec& spec, std::uint64_t seed) const override {
    at::Tensor y = product(x, spec.weight);
    if (spec.lora_a.value.defined()) {
      const at::Tensor h = at::linear(dropped(x, {seed, spec.lora_dropout}), leaf(spec.lora_a));
      std::vector<at::Tensor> updates, gains;
      std::int64_t column = 0, rank_begin = 0;
      const auto fill = [&](std::int64_t to) {
        if (to <= column) return;
        updates.push_back(at::zeros({y.size(0), to - column}, y.options()));
        gains.push_back(at::ones({to - column}, y.options()));
      };
      for (const LoraPart& part : spec.parts) {
        const std::int64_t width = part.b.value.size(0), rank = part.b.value.size(1);
        fill(part.column);
        updates.push_back(at::linear(h.narrow(1, rank_begin, rank), leaf(part.b)) * spec.lora_scale);
        gains.push_back(part.magnitude.value.defined() ? leaf(part.magnitude) / updated_lengths(spec, part, rank_begin)
                                                       : at::ones({width}, y.options()));
        column = part.column + width;
        rank_begin += rank;
      }
      fill(y.size(1));
      y = y + at::cat(updates, 1);
      if (spec.parts.front().magnitude.value.defined()) y = y * at::cat(gains);
    }
    return spec.bias.value.defined() ? y + leaf(spec.bias) : y;
  }

  at::Tensor attention(const at::Tensor& qkv, const PackedRows& rows, std::int64_t heads,
                       const AttentionSpec& spec) const override {
    const PortableRows& p = portable_rows(rows, qkv.device());
    const std::int64_t tokens = qkv.size(0), d = qkv.size(1) / 3, e = d / heads;
    const std::int64_t longest = p.padded.size(0) / rows.rows();
    const auto padded = [&](std::int64_t which) {  // [R, heads, L, e]
      at::Tensor x = qkv.narrow(1, which * d, d).reshape({tokens, heads, e});
      if (which < 2 && spec.rotary.defined()) x = turned(x, spec.rotary.index_select(0, p.places));
      x = at::cat({x, at::zeros({1, heads, e}, x.options())}).index_select(0, p.padded);
      return x.view({rows.rows(), longest, heads, e}).transpose(1, 2);
    };
    const at::Tensor out =
        at::scaled_dot_product_attention(padded(0), padded(1), padded(2), seen_keys(p, longest, tokens, spec.reach));
    return out.transpose(1, 2).reshape({rows.rows() * longest, d}).index_select(0, p.packed);
  }

  at::Tensor gated_gelu(const at::Tensor& u) const override {
    const std::int64_t width = u.size(1) / 2;
    return at::gelu(u.narrow(1, 0, width)) * u.narrow(1, width, width);
  }
  at::Tensor gelu(const at::Tensor& u, const Slot& bias) const override { return at::gelu(u + leaf(bias)); }
  at::Tensor relu(const at::Tensor& u, const Slot& bias) const override { return at::relu(u + leaf(bias)); }

  at::Tensor scale_columns(const at::Tensor& x, const Slot& scale, std::int64_t column) const override {
    const std::int64_t width = scale.value.numel(), behind = x.size(1) - column - width;
    return x * at::cat({at::ones({column}, x.options()), leaf(scale), at::ones({behind}, x.options())});
  }

  at::Tensor add_norm(at::Tensor h, const at::Tensor& residual, const NormSpec& spec,
                      const DropoutSite& site) const override {
    if (spec.bias.value.defined()) h = h + leaf(spec.bias);
    h = dropped(h, site);
    if (residual.defined()) h = h + residual;
    return at::layer_norm(h, {h.size(1)}, leaf(spec.gamma), spec.beta.value.defined() ? leaf(spec.beta) : at::Tensor(),
                          spec.eps);
  }

  at::Tensor mean_pool(const at::Tensor& x, const PackedRows& rows) const override {
    const PortableRows& p = portable_rows(rows, x.device());
    return at::zeros({rows.rows(), x.size(1)}, x.options()).index_add(0, p.rows, x) / p.counts;
  }
  at::Tensor dropout(const at::Tensor& x, const DropoutSite& site) const override { return dropped(x, site); }

 private:
  /// Length of each row of  W + scale B A, a constant.
  static at::Tensor updated_lengths(const LinearSpec& spec, const LoraPart& part, std::int64_t rank_begin) {
    const std::int64_t width = part.b.value.size(0), rank = part.b.value.size(1);
    const at::Tensor weight = spec.weight.value.detach().narrow(0, part.column, width).to(at::kFloat);
    const at::Tensor a = spec.lora_a.value.detach().narrow(0, rank_begin, rank);
    return at::linalg_vector_norm(at::addmm(weight, part.b.value.detach(), a, 1, spec.lora_scale), 2,
                                  at::IntArrayRef{1});
  }
};

}  // namespace

const EncoderBackend& encoder_portable_backend() {
  static const PortableEncoder kBackend;
  return kBackend;
}

}  // namespace tailor::tune
