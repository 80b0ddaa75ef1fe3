#include "tune/encoder_functions.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/add.h>
#include <ATen/ops/index_select.h>

#include <utility>

#include "tune/encoder_backend.h"
#include "tune/kernels.h"
#include "tune/portable.h"

namespace tailor::tune {
namespace {

const EncoderBackend& backend_of(const at::Tensor& x) {
  return native(x) ? encoder_cpu_backend() : encoder_portable_backend();
}

}  // namespace

at::Tensor embed(const EmbeddingSpec& spec, const PackedRows& rows) {
  return backend_of(spec.tokens.value).embed(spec, rows);
}

at::Tensor linear(const at::Tensor& x, const LinearSpec& spec, std::uint64_t seed) {
  return backend_of(x).linear(x, spec, seed);
}

at::Tensor attention(const at::Tensor& qkv, const PackedRows& rows, std::int64_t heads, const AttentionSpec& spec) {
  return backend_of(qkv).attention(qkv, rows, heads, spec);
}

at::Tensor gated_gelu(const at::Tensor& u) {
  return backend_of(u).gated_gelu(u);
}

at::Tensor gelu(const at::Tensor& u, const Slot& bias) {
  return backend_of(u).gelu(u, bias);
}

at::Tensor relu(const at::Tensor& u, const Slot& bias) {
  return backend_of(u).relu(u, bias);
}

at::Tensor add_bottleneck(const at::Tensor& base, const at::Tensor& x, const BottleneckSpec& spec) {
  const at::Tensor u = linear(x, spec.down, 0);
  const at::Tensor a = spec.activation == Activation::kGelu ? gelu(u, spec.down_bias) : relu(u, spec.down_bias);
  return at::add(base, linear(a, spec.up, 0), spec.scale);
}

at::Tensor scale_columns(const at::Tensor& x, const Slot& scale, std::int64_t column) {
  return backend_of(x).scale_columns(x, scale, column);
}

at::Tensor add_norm(at::Tensor h, const at::Tensor& residual, const NormSpec& spec, const DropoutSite& site) {
  const EncoderBackend& backend = backend_of(h);
  return backend.add_norm(std::move(h), residual, spec, site);
}

at::Tensor norm(const at::Tensor& x, const NormSpec& spec) {
  return add_norm(x.clone(), {}, spec, {});
}

at::Tensor mean_pool(const at::Tensor& x, const PackedRows& rows) {
  return backend_of(x).mean_pool(x, rows);
}

at::Tensor first_token_pool(const at::Tensor& x, const PackedRows& rows) {
  const std::span<const std::int64_t> offsets = rows.offsets;
  return at::index_select(x, 0, portable::index_of(offsets.first(offsets.size() - 1), x.device()));
}

at::Tensor dropout(const at::Tensor& x, const DropoutSite& site) {
  return site.probability <= 0 ? x : backend_of(x).dropout(x, site);
}

}  // namespace tailor::tune
