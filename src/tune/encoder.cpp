#include "tune/encoder.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/add.h>

#include "tune/checkpointed.h"

namespace tailor::tune {

/// A dropout site of its own for every place: layer and place pick the stream.
static DropoutSite site(std::uint64_t seed, double probability, std::int64_t layer, std::uint64_t place) {
  if (seed == 0) return {};
  return {Rng::mix(seed + 0x9E3779B97F4A7C15ULL * (static_cast<std::uint64_t>(layer) * 8 + place + 1)), probability};
}

void Encoder::bind(const ParameterSet& parameters) {
  bindings_.bind(parameters);
}

PackedRows Encoder::pack(RowSpan rows) const {
  PackedRows packed;
  packed.offsets.reserve(rows.size() + 1);
  packed.offsets.push_back(0);
  for (const std::int64_t r : rows) {
    std::int32_t place = 0;
    for (const std::int32_t id : file_.row(static_cast<std::size_t>(r))) {
      packed.ids.push_back(compact_[static_cast<std::size_t>(id)]);
      packed.places.push_back(place++);
    }
    const auto types = file_.types_of(static_cast<std::size_t>(r));
    packed.types.insert(packed.types.end(), types.begin(), types.end());
    packed.offsets.push_back(packed.tokens());
  }
  return packed;
}

at::Tensor Encoder::embedded(const PackedRows& rows, std::uint64_t seed) const {
  at::Tensor x = add_norm(embed(embedding_, rows), {}, embedding_norm_, {});
  return seed == 0 ? x : dropout(x, site(seed, options_.hidden_dropout, -1, 0));
}

at::Tensor Encoder::bert_layer(const Layer& layer, std::int64_t l, at::Tensor x, const PackedRows& rows,
                               std::uint64_t seed) const {
  const double p = options_.hidden_dropout;
  const bool parallel = options_.adapter && options_.adapter->place == AdapterPlace::kParallel;
  const auto lora_seed = [&](std::uint64_t place) { return site(seed, 1, l, place).seed; };
  at::Tensor qkv = linear(x, layer.qkv, lora_seed(2));
  if (layer.keys_values_scale.value.defined()) qkv = scale_columns(qkv, layer.keys_values_scale, config_.width);
  at::Tensor o = linear(attention(qkv, rows, config_.heads, layer.view), layer.attn_output, lora_seed(3));
  if (layer.after_attention) o = add_bottleneck(o, o, *layer.after_attention);
  x = add_norm(o, x, layer.attn_norm, site(seed, p, l, 0));
  at::Tensor h = gelu(linear(x, layer.ffn_up, lora_seed(4)), layer.ffn_up_bias);
  if (layer.inner_scale.value.defined()) h = scale_columns(h, layer.inner_scale, 0);
  o = linear(h, layer.ffn_down, lora_seed(5));
  if (layer.ffn_adapter) o = add_bottleneck(o, parallel ? x : o, *layer.ffn_adapter);
  return add_norm(o, x, layer.ffn_norm, site(seed, p, l, 1));
}

at::Tensor Encoder::modern_layer(const Layer& layer, std::int64_t l, at::Tensor x, const PackedRows& rows,
                                 std::uint64_t seed) const {
  const double p = options_.hidden_dropout;
  const bool parallel = options_.adapter && options_.adapter->place == AdapterPlace::kParallel;
  const auto lora_seed = [&](std::uint64_t place) { return site(seed, 1, l, place).seed; };
  const at::Tensor read = layer.attn_norm.gamma.defined() ? norm(x, layer.attn_norm) : x;
  at::Tensor qkv = linear(read, layer.qkv, lora_seed(2));
  if (layer.keys_values_scale.value.defined()) qkv = scale_columns(qkv, layer.keys_values_scale, config_.width);
  at::Tensor o = linear(attention(qkv, rows, config_.heads, layer.view), layer.attn_output, lora_seed(3));
  if (layer.after_attention) o = add_bottleneck(o, o, *layer.after_attention);
  x = at::add(x, dropout(o, site(seed, p, l, 0)));
  const at::Tensor seen = norm(x, layer.ffn_norm);
  at::Tensor h = gated_gelu(linear(seen, layer.ffn_up, lora_seed(4)));
  if (layer.inner_scale.value.defined()) h = scale_columns(h, layer.inner_scale, 0);
  o = linear(h, layer.ffn_down, lora_seed(5));
  if (layer.ffn_adapter) o = add_bottleneck(o, parallel ? seen : o, *layer.ffn_adapter);
  return at::add(x, dropout(o, site(seed, p, l, 1)));
}

at::Tensor Encoder::through(at::Tensor x, std::int64_t first, std::int64_t last, const PackedRows& rows,
                            std::uint64_t seed) const {
  for (std::int64_t l = first; l < last; ++l) {
    const Layer& layer = layers_[static_cast<std::size_t>(l)];
    const auto compute = [this, &layer, l, &rows, seed](const at::Tensor& in) {
      return config_.modern ? modern_layer(layer, l, in, rows, seed) : bert_layer(layer, l, in, rows, seed);
    };
    // The last layer would be computed again at once, for no less memory.
    const bool again = options_.checkpointing && at::GradMode::is_enabled() && l + 1 < config_.layers &&
                       (x.requires_grad() || layer.trains());
    x = again ? checkpointed(x, compute) : compute(x);
  }
  return x;
}

bool Encoder::Layer::trains() const {
  if (keys_values_scale.trained() || after_attention || ffn_adapter || ffn_up_bias.trained()) return true;
  for (const LinearSpec* linear : {&qkv, &attn_output, &ffn_up, &ffn_down}) {
    if (linear->weight.trained() || linear->bias.trained() || linear->lora_a.trained()) return true;
  }
  for (const NormSpec* norm : {&attn_norm, &ffn_norm}) {
    if (norm->gamma.trained() || norm->beta.trained() || norm->bias.trained()) return true;
  }
  return false;
}

at::Tensor Encoder::finished(at::Tensor x) const {
  return config_.modern ? norm(x, final_norm_) : x;
}

}  // namespace tailor::tune
