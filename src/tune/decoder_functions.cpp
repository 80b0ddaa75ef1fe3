#include "tune/decoder_functions.h"

#include <utility>

#include "core/rng.h"
#include "tune/decoder_backend.h"
#include "tune/kernels.h"

namespace tailor::tune::decoder {

const DecoderBackend& backend_of(const at::Tensor& x) {
  return native(x) ? cpu_backend() : portable_backend();
}

LinearSpec LinearSpec::slice(std::int64_t begin, std::int64_t end) const {
  LinearSpec part = *this;
  part.out_begin = begin;
  part.out_end = end;
  part.lora = lora.slice(begin, end);
  return part;
}

std::uint64_t dropout_stream(const LinearSpec& spec) {
  return Rng::mix(Rng::mix(static_cast<std::uint64_t>(spec.dropout.step) * 0x10001ULL +
                           static_cast<std::uint64_t>(spec.dropout.micro_batch)) ^
                  (static_cast<std::uint64_t>(spec.layer) * kLinearGroups + static_cast<std::uint64_t>(spec.group)));
}

at::Tensor norm_linear(const at::Tensor& x, const NormSpec& norm, const LinearSpec& spec) {
  LinearCall call(Input::kNorm, spec);
  call.norm = norm;
  return backend_of(x).linear(x, std::nullopt, call);
}
at::Tensor linear(const at::Tensor& x, const LinearSpec& spec) {
  return backend_of(x).linear(x, std::nullopt, LinearCall(Input::kPlain, spec));
}
at::Tensor linear_add(const at::Tensor& x, const at::Tensor& residual, const LinearSpec& spec) {
  return backend_of(x).linear(x, residual, LinearCall(Input::kPlain, spec));
}
at::Tensor activated_linear(const at::Tensor& x, Activation activation, const LinearSpec& spec) {
  LinearCall call(Input::kActivation, spec);
  call.activation = activation;
  return backend_of(x).linear(x, std::nullopt, call);
}
at::Tensor activated_linear_add(const at::Tensor& x, Activation activation, const at::Tensor& residual,
                                const LinearSpec& spec) {
  LinearCall call(Input::kActivation, spec);
  call.activation = activation;
  return backend_of(x).linear(x, residual, call);
}
at::Tensor norm(const at::Tensor& x, const NormSpec& norm) {
  return backend_of(x).norm(x, norm);
}
at::Tensor activated(const at::Tensor& x, Activation activation) {
  return backend_of(x).activated(x, activation);
}

at::Tensor head_norms(const at::Tensor& qkv, const Norm& q, const Norm& k, double eps, const DecoderConfig& config) {
  std::vector<HeadNorm> norms;
  if (q.defined()) norms.push_back({q, 0, config.heads});
  if (k.defined()) norms.push_back({k, qkv.size(1) - 2 * config.kv_width(), config.kv_heads});
  return backend_of(qkv).head_norms(qkv, norms, eps, config.head_dim);
}

at::Tensor table_rows(const Slot& table, std::span<const std::int64_t> ids) {
  return backend_of(table.value).table_rows(table, ids);
}

at::Tensor attention(const at::Tensor& qkv, const std::shared_ptr<const AttentionPlan>& plan) {
  return backend_of(qkv).attention(qkv, {}, plan);
}
at::Tensor attention_at_labels(const at::Tensor& q, const at::Tensor& kv,
                               const std::shared_ptr<const AttentionPlan>& plan) {
  return backend_of(q).attention(q, kv, plan);
}

void turn(const at::Tensor& rows, const RopeShape& shape, const AttentionPlan& plan,
          std::span<const std::int64_t> positions) {
  backend_of(rows).turn(rows, shape, plan, positions);
}

at::Tensor attention_over(const AttentionShape& shape, std::span<const TreeSegment> segments, const QuerySet& queries,
                          const at::Tensor& q, const at::Tensor& keys_values) {
  return backend_of(q).attention_over(shape, segments, queries, q, keys_values);
}

at::Tensor logits_of(const LossHead& head, const at::Tensor& hidden) {
  return backend_of(hidden).logits(head, hidden);
}

std::vector<float> losses_of(const LossHead& head, const at::Tensor& hidden, const PackedTree& tree,
                             std::span<const float> target_weights, at::Tensor* dhidden,
                             std::vector<std::uint8_t>* likeliest) {
  if (likeliest != nullptr) likeliest->assign(tree.targets.size(), 0);
  return backend_of(hidden).losses(head, hidden, tree, target_weights, dhidden, likeliest);
}

}  // namespace tailor::tune::decoder
