#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/linalg_svd.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/sqrt.h>
#include <ATen/ops/zeros.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "tune/bottleneck.h"
#include "tune/encoder.h"

namespace tailor::tune {
namespace {

constexpr std::string_view kWords = "token_embd.weight";
constexpr std::string_view kPositions = "position_embd.weight";
constexpr std::string_view kTypes = "token_types.weight";

bool decays(std::string_view name) {
  return !name.ends_with(".bias") && name.find("norm") == std::string_view::npos;
}

std::string block(int layer, std::string_view rest) {
  return fmt::format("blk.{}.{}", layer, rest);
}

/// The largest singular triples of `weight`, divided between the two:  scale B A  is the best approximation of its
/// rank.
void principal_parts(const at::Tensor& weight, double scale, at::Tensor& a, at::Tensor& b) {
  const std::int64_t rank = a.size(0);
  const auto [u, s, vh] = at::linalg_svd(weight, /*full_matrices=*/false);
  const at::Tensor root = at::sqrt(s.narrow(0, 0, rank) / scale);
  a.copy_(vh.narrow(0, 0, rank) * root.unsqueeze(1));
  b.copy_(u.narrow(1, 0, rank) * root);
}

/// AttentionSpec::rotary of `places` places: angle place base^(-2 i / width) of pair i.
at::Tensor turns(std::int64_t places, std::int64_t width, double base) {
  at::Tensor table = at::empty({places, width}, at::kFloat);
  float* to = table.data_ptr<float>();
  for (std::int64_t p = 0; p < places; ++p) {
    for (std::int64_t i = 0; i < width / 2; ++i) {
      const double angle =
          static_cast<double>(p) * std::pow(base, -2.0 * static_cast<double>(i) / static_cast<double>(width));
      *to++ = static_cast<float>(std::cos(angle));
      *to++ = static_cast<float>(std::sin(angle));
    }
  }
  return table;
}

}  // namespace

Encoder::Encoder(const BaseWeights& weights, const TokenFile& file, EncoderOptions options, ParameterSet& parameters,
                 Rng& rng)
    : config_(EncoderConfig::read(weights)), options_(std::move(options)), file_(file) {
  read_rows();
  fill_tables(weights, parameters);
  layers_.resize(static_cast<std::size_t>(config_.layers));  // slots keep their addresses from here on
  for (int l = 0; l < static_cast<int>(config_.layers); ++l) {
    Layer& layer = layers_[static_cast<std::size_t>(l)];
    config_.modern ? fill_modern_layer(layer, l, weights, parameters, rng)
                   : fill_bert_layer(layer, l, weights, parameters, rng);
    add_method(layer, l, parameters, rng);
  }
  if (config_.modern) fill(final_norm_.gamma, {"output_norm.weight"}, {config_.width}, weights, parameters, false);
  final_norm_.eps = config_.eps;
}

/// Rejects rows that the model cannot read.
void Encoder::read_rows() {
  const TokenFile& file = file_;
  compact_.assign(static_cast<std::size_t>(config_.vocabulary), -1);
  for (std::size_t r = 0; r < file.rows(); ++r) {
    const auto length = static_cast<std::int64_t>(file.row(r).size());
    if (length > config_.context) {
      throw Exception(
          {ErrorCode::kInvalidArgument,
           fmt::format("row {} has {} tokens, the model's context is {}", file.row_ids[r], length, config_.context),
           "cut the row before training"});
    }
    longest_row_ = std::max(longest_row_, length);
  }
  for (const std::int32_t id : file.tokens) {
    if (id >= config_.vocabulary) {
      throw Exception({ErrorCode::kInvalidArgument,
                       fmt::format("token id {} is not below the model's vocabulary of {}", id, config_.vocabulary),
                       "the token file was made with another model's tokenizer"});
    }
    compact_[static_cast<std::size_t>(id)] = 0;
  }
  for (std::int64_t id = 0; id < config_.vocabulary; ++id) {
    if (compact_[static_cast<std::size_t>(id)] == 0) {
      compact_[static_cast<std::size_t>(id)] = static_cast<std::int32_t>(used_ids_.size());
      used_ids_.push_back(id);
    }
  }
}

void Encoder::fill_tables(const BaseWeights& weights, ParameterSet& parameters) {
  const std::int64_t d = config_.width;
  // Tables are cut to the rows in use; all else keeps its shape.
  const auto fill_table = [&](Slot& slot, std::string_view name, at::Tensor rows) {
    if (trained(name)) {
      parameters.add(std::string(name), rows, {.decay = true});
      bindings_.add(slot, {std::string(name)}, rows.sizes().vec());
    } else {
      slot.value = rows.to(options_.device);
    }
  };
  std::vector<std::int64_t> places(static_cast<std::size_t>(longest_row_));
  for (std::size_t i = 0; i < places.size(); ++i) places[i] = static_cast<std::int64_t>(i);
  fill_table(embedding_.tokens, kWords, weights.load_rows(kWords, used_ids_));
  if (!config_.modern) fill_table(embedding_.positions, kPositions, weights.load_rows(kPositions, places));
  const std::vector<std::uint8_t>& types = file_.types;
  const std::int64_t used_types = types.empty() ? 1 : 1 + *std::max_element(types.begin(), types.end());
  if (used_types > config_.token_types) {
    throw Exception(
        {ErrorCode::kInvalidArgument,
         fmt::format("the token file has token type {}, the model has {} type(s)", used_types - 1, config_.token_types),
         "the token file was made for another model"});
  }
  if (weights.has(kTypes)) {
    const std::vector<std::int64_t> rows = {0, 1};
    // With one type only, converters may store a plain vector.
    fill_table(embedding_.types, kTypes,
               weights.stored(kTypes).shape.size() == 2
                   ? weights.load_rows(kTypes, std::span(rows).first(static_cast<std::size_t>(used_types)))
                   : weights.load(kTypes, {d}).view({1, d}));
  } else if (!config_.modern) {
    embedding_.types.value = at::zeros({1, d}, at::kFloat).to(options_.device);
  }
  fill(embedding_norm_.gamma, {"token_embd_norm.weight"}, {d}, weights, parameters, false);
  if (!config_.modern) fill(embedding_norm_.beta, {"token_embd_norm.bias"}, {d}, weights, parameters, false);
  embedding_norm_.eps = config_.eps;
  if (!config_.modern) return;
  global_turns_ = turns(longest_row_, d / config_.heads, config_.modern->global_base).to(options_.device);
  local_turns_ = turns(longest_row_, d / config_.heads, config_.modern->local_base).to(options_.device);
}

void Encoder::fill_bert_layer(Layer& layer, int l, const BaseWeights& weights, ParameterSet& parameters, Rng& rng) {
  const std::int64_t d = config_.width, f = config_.feed_forward;
  const auto names = [&](std::string_view kind) {
    return std::vector<std::string>{block(l, fmt::format("attn_q.{}", kind)), block(l, fmt::format("attn_k.{}", kind)),
                                    block(l, fmt::format("attn_v.{}", kind))};
  };
  fill(layer.qkv.weight, names("weight"), {3 * d, d}, weights, parameters, true);
  fill(layer.qkv.bias, names("bias"), {3 * d}, weights, parameters, false);
  fill(layer.attn_output.weight, {block(l, "attn_output.weight")}, {d, d}, weights, parameters, true);
  fill(layer.attn_norm.bias, {block(l, "attn_output.bias")}, {d}, weights, parameters, false);
  fill(layer.attn_norm.gamma, {block(l, "attn_output_norm.weight")}, {d}, weights, parameters, false);
  fill(layer.attn_norm.beta, {block(l, "attn_output_norm.bias")}, {d}, weights, parameters, false);
  fill(layer.ffn_up.weight, {block(l, "ffn_up.weight")}, {f, d}, weights, parameters, true);
  fill(layer.ffn_up_bias, {block(l, "ffn_up.bias")}, {f}, weights, parameters, false);
  fill(layer.ffn_down.weight, {block(l, "ffn_down.weight")}, {d, f}, weights, parameters, true);
  fill(layer.ffn_norm.bias, {block(l, "ffn_down.bias")}, {d}, weights, parameters, false);
  fill(layer.ffn_norm.gamma, {block(l, "layer_output_norm.weight")}, {d}, weights, parameters, false);
  fill(layer.ffn_norm.beta, {block(l, "layer_output_norm.bias")}, {d}, weights, parameters, false);
  layer.attn_norm.eps = layer.ffn_norm.eps = config_.eps;
  add_lora(layer.qkv, l, {"attn_q", "attn_k", "attn_v"}, {d, d, d}, d, parameters, rng);
  add_lora(layer.attn_output, l, {"attn_output"}, {d}, d, parameters, rng);
  add_lora(layer.ffn_up, l, {"ffn_up"}, {f}, d, parameters, rng);
  add_lora(layer.ffn_down, l, {"ffn_down"}, {d}, f, parameters, rng);
}

void Encoder::fill_modern_layer(Layer& layer, int l, const BaseWeights& weights, ParameterSet& parameters, Rng& rng) {
  const std::int64_t d = config_.width, f = config_.feed_forward;
  if (l > 0) fill(layer.attn_norm.gamma, {block(l, "attn_norm.weight")}, {d}, weights, parameters, false);
  fill(layer.qkv.weight, {block(l, "attn_qkv.weight")}, {3 * d, d}, weights, parameters, true);
  fill(layer.attn_output.weight, {block(l, "attn_output.weight")}, {d, d}, weights, parameters, true);
  fill(layer.ffn_norm.gamma, {block(l, "ffn_norm.weight")}, {d}, weights, parameters, false);
  fill(layer.ffn_up.weight, {block(l, "ffn_up.weight")}, {2 * f, d}, weights, parameters, true);
  fill(layer.ffn_down.weight, {block(l, "ffn_down.weight")}, {d, f}, weights, parameters, true);
  layer.attn_norm.eps = layer.ffn_norm.eps = config_.eps;
  const bool global = config_.modern->is_global(l);
  layer.view = {.reach = global ? -1 : config_.modern->window / 2, .rotary = global ? global_turns_ : local_turns_};
  add_lora(layer.qkv, l, {"attn_qkv"}, {3 * d}, d, parameters, rng);
  add_lora(layer.attn_output, l, {"attn_output"}, {d}, d, parameters, rng);
  add_lora(layer.ffn_up, l, {"ffn_up"}, {2 * f}, d, parameters, rng);
  add_lora(layer.ffn_down, l, {"ffn_down"}, {d}, f, parameters, rng);
}

/// IA3's scales and bottleneck adapters.
void Encoder::add_method(Layer& layer, int l, ParameterSet& parameters, Rng& rng) {
  if (options_.ia3) {
    add_scale(layer.keys_values_scale, {block(l, "ia3_k"), block(l, "ia3_v")}, config_.width, parameters);
    add_scale(layer.inner_scale, {block(l, "ia3_ffn")}, config_.feed_forward, parameters);
  }
  if (options_.adapter && options_.adapter->place == AdapterPlace::kHoulsby) {
    fill_bottleneck(layer.after_attention, block(l, "adapter_attn"), parameters, rng);
    std::swap(layer.attn_output.bias, layer.attn_norm.bias);  // the adapter reads what the linear layer gives, whole
  }
  if (options_.adapter) {
    fill_bottleneck(layer.ffn_adapter, block(l, "adapter_ffn"), parameters, rng);
    if (options_.adapter->place != AdapterPlace::kParallel) std::swap(layer.ffn_down.bias, layer.ffn_norm.bias);
  }
}

bool Encoder::trained(std::string_view tensor) const {
  return options_.trained && options_.trained(tensor) && (tensor != kTypes || config_.trains_types);
}

bool Encoder::rounded(std::string_view tensor, std::size_t dimensions) const {
  return options_.dtype == Dtype::kBf16 && dimensions == 2 && tensor.starts_with("blk.") && !trained(tensor);
}

void Encoder::fill(Slot& slot, std::vector<std::string> names, std::vector<std::int64_t> shape,
                   const BaseWeights& weights, ParameterSet& parameters, bool decay) {
  std::vector<std::int64_t> part = shape;
  part[0] /= static_cast<std::int64_t>(names.size());
  const bool train = trained(names[0]);
  if (!train) {
    slot.value = at::empty(shape, rounded(names[0], shape.size()) ? at::kBFloat16 : at::kFloat);
    for (std::size_t i = 0; i < names.size(); ++i) {
      slot.value.narrow(0, static_cast<std::int64_t>(i) * part[0], part[0]).copy_(weights.load(names[i], part));
    }
    slot.value = slot.value.to(options_.device);
    return;
  }
  for (const std::string& name : names) {
    if (!trained(name)) {
      throw Exception({ErrorCode::kInternal, fmt::format("{} cannot be trained without {}", names[0], name), ""});
    }
    parameters.add(name, weights.load(name, part), {.decay = decay && decays(name)});
  }
  bindings_.add(slot, std::move(names), std::move(shape));
}

void Encoder::add_lora(LinearSpec& linear, int layer, const std::vector<std::string>& modules,
                       const std::vector<std::int64_t>& widths, std::int64_t in, ParameterSet& parameters, Rng& rng) {
  const std::int64_t rank = options_.lora.r;
  std::vector<std::size_t> chosen;
  for (std::size_t i = 0; i < modules.size(); ++i) {
    if (std::find(options_.lora_targets.begin(), options_.lora_targets.end(), block(layer, modules[i])) !=
        options_.lora_targets.end())
      chosen.push_back(i);
  }
  if (chosen.empty()) return;
  std::vector<std::string> stacked;
  std::vector<std::int64_t> columns(modules.size(), 0);
  for (std::size_t i = 1; i < modules.size(); ++i) columns[i] = columns[i - 1] + widths[i - 1];
  std::vector<at::Tensor> starts;
  // PEFT's first values: A uniform in +-1/sqrt(in) (kaiming_uniform with a = sqrt(5)), B zero.
  for (const std::size_t i : chosen) {
    if (rank > std::min(in, widths[i])) {
      throw Exception(
          {ErrorCode::kInvalidArgument,
           fmt::format("lora.r is {}, but {} has a dimension of {}", rank, modules[i], std::min(in, widths[i])),
           "use a smaller r"});
    }
    const std::string name = block(layer, modules[i]);
    at::Tensor a = at::empty({rank, in}, at::kFloat);
    at::Tensor b = at::zeros({widths[i], rank}, at::kFloat);
    if (options_.lora.pissa) {
      at::Tensor weight = linear.weight.value.narrow(0, columns[i], widths[i]);
      principal_parts(weight, options_.lora.scale(), a, b);
      weight.addmm_(b.to(weight.device()), a.to(weight.device()), 1, -options_.lora.scale());
      first_[name] = {a, b};
    } else if (options_.lora_start) {
      const AdapterStart::Module& given = options_.lora_start->modules.at(name);
      a = given.a;
      b = given.b;
    } else {
      const double bound = 1.0 / std::sqrt(static_cast<double>(in));
      for (float *p = a.data_ptr<float>(), *end = p + a.numel(); p != end; ++p)
        *p = static_cast<float>((2 * rng.uniform() - 1) * bound);
    }
    parameters.add(name + ".lora_a", a, {});
    stacked.push_back(name + ".lora_a");
    starts.push_back(b);
  }
  bindings_.add(linear.lora_a, std::move(stacked), {static_cast<std::int64_t>(chosen.size()) * rank, in});
  linear.lora_scale = options_.lora.scale();
  linear.lora_dropout = options_.lora.dropout;
  linear.parts.reserve(chosen.size());
  for (std::size_t c = 0; c < chosen.size(); ++c) {
    const std::size_t i = chosen[c];
    linear.parts.push_back({{}, columns[i], {}});
    LoraPart& part = linear.parts.back();
    const std::string name = block(layer, modules[i]);
    parameters.add(name + ".lora_b", starts[c], {.rate_scale = options_.lora.b_rate_scale});
    bindings_.add(part.b, {name + ".lora_b"}, {widths[i], rank});
    if (!options_.lora.dora) continue;
    parameters.add(name + ".lora_magnitude",
                   options_.lora_start
                       ? options_.lora_start->modules.at(name).magnitude
                       : at::linalg_vector_norm(linear.weight.value.narrow(0, columns[i], widths[i]).to(at::kFloat), 2,
                                                at::IntArrayRef{1}),
                   {.decay = false});
    bindings_.add(part.magnitude, {name + ".lora_magnitude"}, {widths[i]});
  }
}

/// Each of `names` is `width` long.
void Encoder::add_scale(Slot& slot, std::vector<std::string> names, std::int64_t width, ParameterSet& parameters) {
  for (const std::string& name : names) parameters.add(name, at::ones({width}, at::kFloat), {.decay = false});
  const std::int64_t all = width * static_cast<std::int64_t>(names.size());
  bindings_.add(slot, std::move(names), {all});
}

void Encoder::fill_bottleneck(std::optional<BottleneckSpec>& spec, const std::string& name, ParameterSet& parameters,
                              Rng& rng) {
  const auto names = add_bottleneck_parameters(spec.emplace(), name, config_.width, options_.adapter->place,
                                               options_.adapter->settings, parameters, bindings_, rng);
  bottleneck_names_.insert(bottleneck_names_.end(), names.begin(), names.end());
}

}  // namespace tailor::tune
