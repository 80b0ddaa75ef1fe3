#include "tune/encoder.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>

#include "tune/hf_names.h"

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

/// A dropout site of its own for every place: layer and place pick the stream.
DropoutSite site(std::uint64_t seed, double probability, std::int64_t layer, std::uint64_t place) {
  if (seed == 0) return {};
  return {Rng::mix(seed + 0x9E3779B97F4A7C15ULL * (static_cast<std::uint64_t>(layer) * 8 + place + 1)), probability};
}

}  // namespace

EncoderConfig EncoderConfig::read(const BaseWeights& weights) {
  const auto whole = [&](std::string_view key) { return static_cast<std::int64_t>(weights.need_number(key)); };
  EncoderConfig c;
  c.layers = whole("bert.block_count");
  c.width = whole("bert.embedding_length");
  c.heads = whole("bert.attention.head_count");
  c.feed_forward = whole("bert.feed_forward_length");
  c.context = whole("bert.context_length");
  c.eps = static_cast<float>(weights.need_number("bert.attention.layer_norm_epsilon"));
  const StoredTensor& words = weights.stored(kWords);
  if (c.layers < 1 || c.layers > 1024 || c.heads < 1 || c.width < 1 || c.width % c.heads != 0 || c.feed_forward < 1 ||
      c.context < 1 || words.shape.size() != 2 || words.shape[1] != c.width) {
    throw Exception(
        {ErrorCode::kCorruptData,
         fmt::format(
             "{}: the encoder's shape makes no sense: {} layers, width {}, {} heads, feed-forward {}, context {}",
             weights.path().string(), c.layers, c.width, c.heads, c.feed_forward, c.context),
         "fetch or import the model again"});
  }
  c.vocabulary = words.shape[0];
  return c;
}

const std::vector<std::string>& encoder_linear_modules() {
  static const std::vector<std::string> kModules = {"attn_q", "attn_k", "attn_v", "attn_output", "ffn_up", "ffn_down"};
  return kModules;
}

std::vector<std::string> resolve_lora_targets(const std::vector<std::string>& names) {
  std::vector<std::string> targets;
  const auto& modules = encoder_linear_modules();
  for (const std::string& name : names) {
    bool known = false;
    for (const std::string& module : modules) {
      // PEFT matches the end of the module's path: "dense" is every path that ends in ".dense".
      const std::string hf = *hf_module_of_encoder("blk.0." + module);
      if (name == "all-linear" || name == module || hf.ends_with("." + name)) {
        known = true;
        if (std::find(targets.begin(), targets.end(), module) == targets.end()) targets.push_back(module);
      }
    }
    if (!known) {
      throw Exception({ErrorCode::kInvalidArgument,
                       fmt::format("lora.target_modules: '{}' is not a module of this encoder", name),
                       fmt::format("known: all-linear, {}, query, key, value, dense", fmt::join(modules, ", "))});
    }
  }
  if (targets.empty()) {
    throw Exception({ErrorCode::kInvalidArgument,
                     "lora.target_modules is empty: nothing would be trained in the encoder",
                     "name modules, or \"all-linear\""});
  }
  std::sort(targets.begin(), targets.end(), [&](const std::string& a, const std::string& b) {
    return std::find(modules.begin(), modules.end(), a) < std::find(modules.begin(), modules.end(), b);
  });
  return targets;
}

Encoder::Encoder(const BaseWeights& weights, const TokenFile& file, EncoderOptions options, ParameterSet& parameters,
                 Rng& rng)
    : config_(EncoderConfig::read(weights)), options_(std::move(options)), file_(file) {
  const std::int64_t d = config_.width;
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

  // Tables are cut to the rows in use; all else keeps its shape.
  const auto fill_table = [&](Slot& slot, std::string_view name, at::Tensor rows) {
    if (trained(name)) {
      parameters.add(std::string(name), rows, {.decay = true});
      bindings_.push_back({&slot, {std::string(name)}, rows.sizes().vec()});
    } else {
      slot.value = std::move(rows);
    }
  };
  std::vector<std::int64_t> places(static_cast<std::size_t>(longest_row_));
  for (std::size_t i = 0; i < places.size(); ++i) places[i] = static_cast<std::int64_t>(i);
  fill_table(embedding_.tokens, kWords, weights.load_rows(kWords, used_ids_));
  fill_table(embedding_.positions, kPositions, weights.load_rows(kPositions, places));
  if (weights.has(kTypes)) {
    const StoredTensor& types = weights.stored(kTypes);
    const std::int64_t zero[] = {0};
    // With one type only, converters may store a plain vector.
    fill_table(embedding_.type, kTypes,
               types.shape.size() == 2 ? weights.load_rows(kTypes, zero).view({d}) : weights.load(kTypes, {d}));
  } else {
    embedding_.type.value = at::zeros({d}, at::kFloat);
  }
  fill(embedding_norm_.gamma, {"token_embd_norm.weight"}, {d}, weights, parameters, false);
  fill(embedding_norm_.beta, {"token_embd_norm.bias"}, {d}, weights, parameters, false);
  embedding_norm_.eps = config_.eps;

  layers_.resize(static_cast<std::size_t>(config_.layers));  // slots keep their addresses from here on
  const std::int64_t f = config_.feed_forward;
  for (int l = 0; l < static_cast<int>(config_.layers); ++l) {
    Layer& layer = layers_[static_cast<std::size_t>(l)];
    const auto names = [&](std::string_view kind) {
      return std::vector<std::string>{block(l, fmt::format("attn_q.{}", kind)),
                                      block(l, fmt::format("attn_k.{}", kind)),
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
}

void Encoder::fill(Slot& slot, std::vector<std::string> names, std::vector<std::int64_t> shape,
                   const BaseWeights& weights, ParameterSet& parameters, bool decay) {
  std::vector<std::int64_t> part = shape;
  part[0] /= static_cast<std::int64_t>(names.size());
  const bool train = trained(names[0]);
  if (!train) {
    slot.value = at::empty(shape, at::kFloat);
    for (std::size_t i = 0; i < names.size(); ++i) {
      slot.value.narrow(0, static_cast<std::int64_t>(i) * part[0], part[0]).copy_(weights.load(names[i], part));
    }
    return;
  }
  for (const std::string& name : names) {
    if (!trained(name)) {
      throw Exception({ErrorCode::kInternal, fmt::format("{} cannot be trained without {}", names[0], name), ""});
    }
    parameters.add(name, weights.load(name, part), {.decay = decay && decays(name)});
  }
  bindings_.push_back({&slot, std::move(names), std::move(shape)});
}

void Encoder::add_lora(LinearSpec& linear, int layer, const std::vector<std::string>& modules,
                       const std::vector<std::int64_t>& widths, std::int64_t in, ParameterSet& parameters, Rng& rng) {
  const std::int64_t rank = options_.lora.r;
  std::vector<std::size_t> chosen;
  for (std::size_t i = 0; i < modules.size(); ++i) {
    if (std::find(options_.lora_targets.begin(), options_.lora_targets.end(), modules[i]) !=
        options_.lora_targets.end())
      chosen.push_back(i);
  }
  if (chosen.empty()) return;
  Binding stack{&linear.lora_a, {}, {static_cast<std::int64_t>(chosen.size()) * rank, in}};
  // PEFT's first values: A uniform in +-1/sqrt(in) (kaiming_uniform with a = sqrt(5)), B zero.
  for (const std::size_t i : chosen) {
    if (rank > std::min(in, widths[i])) {
      throw Exception(
          {ErrorCode::kInvalidArgument,
           fmt::format("lora.r is {}, but {} has a dimension of {}", rank, modules[i], std::min(in, widths[i])),
           "use a smaller r"});
    }
    at::Tensor a = at::empty({rank, in}, at::kFloat);
    const double bound = 1.0 / std::sqrt(static_cast<double>(in));
    for (float *p = a.data_ptr<float>(), *end = p + a.numel(); p != end; ++p)
      *p = static_cast<float>((2 * rng.uniform() - 1) * bound);
    const std::string name = block(layer, modules[i] + ".lora_a");
    parameters.add(name, a, {});
    stack.names.push_back(name);
  }
  bindings_.push_back(std::move(stack));
  linear.lora_scale = options_.lora.alpha / static_cast<double>(rank);
  linear.lora_dropout = options_.lora.dropout;
  linear.parts.reserve(chosen.size());
  for (const std::size_t i : chosen) {
    std::int64_t column = 0;
    for (std::size_t j = 0; j < i; ++j) column += widths[j];
    linear.parts.push_back({{}, column});
    const std::string name = block(layer, modules[i] + ".lora_b");
    parameters.add(name, at::zeros({widths[i], rank}, at::kFloat), {});
    bindings_.push_back({&linear.parts.back().b, {name}, {widths[i], rank}});
  }
}

void Encoder::bind(const ParameterSet& parameters) {
  for (const Binding& binding : bindings_) {
    const std::int64_t offset = parameters.at(binding.names[0]).offset;
    std::int64_t count = 0;
    for (const std::string& name : binding.names) {
      const Parameter& p = parameters.at(name);
      if (p.offset != offset + count)
        throw Exception({ErrorCode::kInternal, name + " does not lie beside its neighbours", ""});
      count += p.value.numel();
    }
    binding.slot->value =
        parameters.flat_values().narrow(0, offset, count).view(binding.shape).detach().requires_grad_();
    binding.slot->grad = parameters.flat_grad().narrow(0, offset, count).view(binding.shape);
  }
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
    packed.offsets.push_back(packed.tokens());
  }
  return packed;
}

at::Tensor Encoder::forward(const PackedRows& rows, std::uint64_t seed) const {
  const double p = options_.hidden_dropout;
  at::Tensor x = add_norm(embed(embedding_, rows), {}, embedding_norm_, {});
  if (seed != 0) x = dropout(x, site(seed, p, -1, 0));
  for (std::int64_t l = 0; l < config_.layers; ++l) {
    const Layer& layer = layers_[static_cast<std::size_t>(l)];
    const auto lora_seed = [&](std::uint64_t place) { return site(seed, 1, l, place).seed; };
    at::Tensor a = attention(linear(x, layer.qkv, lora_seed(2)), rows, config_.heads);
    x = add_norm(linear(a, layer.attn_output, lora_seed(3)), x, layer.attn_norm, site(seed, p, l, 0));
    at::Tensor h = gelu(linear(x, layer.ffn_up, lora_seed(4)), layer.ffn_up_bias);
    x = add_norm(linear(h, layer.ffn_down, lora_seed(5)), x, layer.ffn_norm, site(seed, p, l, 1));
  }
  return x;
}

std::vector<Encoder::Adapter> Encoder::adapters(const ParameterSet& parameters) const {
  std::vector<Adapter> found;
  for (std::int64_t l = 0; l < config_.layers; ++l) {
    for (const std::string& module : options_.lora_targets) {
      const std::string name = block(static_cast<int>(l), module);
      found.push_back(
          {name, parameters.at(name + ".lora_a").value.detach(), parameters.at(name + ".lora_b").value.detach()});
    }
  }
  return found;
}

void Encoder::visit_merged(const BaseWeights& weights, const ParameterSet& parameters, double unused_decay,
                           bool changed_only, const std::function<void(const Named&)>& visit) const {
  const auto adapters_here = adapters(parameters);
  for (const std::string& name : weights.names()) {
    const bool here = parameters.contains(name);
    const auto adapter = std::find_if(adapters_here.begin(), adapters_here.end(),
                                      [&](const Adapter& a) { return name == a.module + ".weight"; });
    if (changed_only && !here && adapter == adapters_here.end()) continue;
    if (!here) {
      at::Tensor value = weights.load(name);
      if (adapter != adapters_here.end())
        value.addmm_(adapter->b, adapter->a, 1, options_.lora.alpha / options_.lora.r);
      visit({name, value});
      continue;
    }
    const at::Tensor trained_value = parameters.at(name).value.detach();
    if (name == kWords || name == kPositions || name == kTypes) {
      at::Tensor whole = weights.load(name);
      whole.mul_(unused_decay);
      if (name == kWords) {
        for (std::size_t i = 0; i < used_ids_.size(); ++i) {
          whole.select(0, used_ids_[i]).copy_(trained_value.select(0, static_cast<std::int64_t>(i)));
        }
      } else {
        whole.view({-1, config_.width})
            .narrow(0, 0, trained_value.numel() / config_.width)
            .copy_(trained_value.view({-1, config_.width}));
      }
      visit({name, whole});
    } else {
      visit({name, trained_value});
    }
  }
}

}  // namespace tailor::tune
