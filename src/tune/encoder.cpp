#include "tune/encoder.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/linalg_svd.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/sqrt.h>
#include <ATen/ops/zeros.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "core/bottleneck_file.h"
#include "tune/hf_names.h"

namespace tailor::tune {
namespace {

constexpr std::string_view kWords = "token_embd.weight";
constexpr std::string_view kPositions = "position_embd.weight";
constexpr std::string_view kTypes = "token_types.weight";
constexpr double kAdapterStd = 0.01;  // of a bottleneck's first weights: close to the identity

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

/// The largest singular triples of `weight`, divided between the two:  scale B A  is the best approximation of its
/// rank.
void principal_parts(const at::Tensor& weight, double scale, at::Tensor& a, at::Tensor& b) {
  const std::int64_t rank = a.size(0);
  const auto [u, s, vh] = at::linalg_svd(weight, /*full_matrices=*/false);
  const at::Tensor root = at::sqrt(s.narrow(0, 0, rank) / scale);
  a.copy_(vh.narrow(0, 0, rank) * root.unsqueeze(1));
  b.copy_(u.narrow(1, 0, rank) * root);
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
  c.model_type = weights.text(kSourceModelType).value_or("bert");
  c.trains_types = c.model_type != "distilbert";
  if (weights.has(kTypes) && weights.stored(kTypes).shape.size() == 2) c.token_types = weights.stored(kTypes).shape[0];
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

/// What PEFT's users write: the last part of each module's path.
static std::vector<std::string> hf_module_endings(std::string_view model_type) {
  std::vector<std::string> endings;
  for (const std::string& module : encoder_linear_modules()) {
    const std::string path = *hf_module_of_encoder("blk.0." + module, model_type);
    std::string ending = path.substr(path.rfind('.') + 1);
    if (std::find(endings.begin(), endings.end(), ending) == endings.end()) endings.push_back(std::move(ending));
  }
  return endings;
}

std::vector<std::string> resolve_lora_targets(const std::vector<std::string>& names, std::string_view model_type) {
  std::vector<std::string> targets;
  const auto& modules = encoder_linear_modules();
  for (const std::string& name : names) {
    bool known = false;
    for (const std::string& module : modules) {
      // PEFT matches the end of the module's path: "dense" is every path that ends in ".dense".
      const std::string hf = *hf_module_of_encoder("blk.0." + module, model_type);
      if (name == "all-linear" || name == module || hf.ends_with("." + name)) {
        known = true;
        if (std::find(targets.begin(), targets.end(), module) == targets.end()) targets.push_back(module);
      }
    }
    if (!known) {
      throw Exception({ErrorCode::kInvalidArgument,
                       fmt::format("lora.target_modules: '{}' is not a module of this encoder", name),
                       fmt::format("known: all-linear, {}, {}", fmt::join(modules, ", "),
                                   fmt::join(hf_module_endings(model_type), ", "))});
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
  const std::int64_t used_types = file.types.empty() ? 1 : 1 + *std::max_element(file.types.begin(), file.types.end());
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
  } else {
    embedding_.types.value = at::zeros({1, d}, at::kFloat);
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
    if (options_.ia3) {
      add_scale(layer.keys_values_scale, {block(l, "ia3_k"), block(l, "ia3_v")}, d, parameters);
      add_scale(layer.inner_scale, {block(l, "ia3_ffn")}, f, parameters);
    }
    if (options_.adapter && options_.adapter->place == AdapterPlace::kHoulsby) {
      add_bottleneck_adapter(layer.after_attention, block(l, "adapter_attn"), parameters, rng);
      std::swap(layer.attn_output.bias, layer.attn_norm.bias);  // the adapter reads what the linear layer gives, whole
    }
    if (options_.adapter) {
      add_bottleneck_adapter(layer.ffn_adapter, block(l, "adapter_ffn"), parameters, rng);
      if (options_.adapter->place != AdapterPlace::kParallel) std::swap(layer.ffn_down.bias, layer.ffn_norm.bias);
    }
  }
}

bool Encoder::trained(std::string_view tensor) const {
  return options_.trained && options_.trained(tensor) && (tensor != kTypes || config_.trains_types);
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
      weight.addmm_(b, a, 1, -options_.lora.scale());
      first_[name] = {a, b};
    } else {
      const double bound = 1.0 / std::sqrt(static_cast<double>(in));
      for (float *p = a.data_ptr<float>(), *end = p + a.numel(); p != end; ++p)
        *p = static_cast<float>((2 * rng.uniform() - 1) * bound);
    }
    parameters.add(name + ".lora_a", a, {});
    stack.names.push_back(name + ".lora_a");
    starts.push_back(b);
  }
  bindings_.push_back(std::move(stack));
  linear.lora_scale = options_.lora.scale();
  linear.lora_dropout = options_.lora.dropout;
  linear.parts.reserve(chosen.size());
  for (std::size_t c = 0; c < chosen.size(); ++c) {
    const std::size_t i = chosen[c];
    linear.parts.push_back({{}, columns[i], {}});
    LoraPart& part = linear.parts.back();
    const std::string name = block(layer, modules[i]);
    parameters.add(name + ".lora_b", starts[c], {.rate_scale = options_.lora.b_rate_scale});
    bindings_.push_back({&part.b, {name + ".lora_b"}, {widths[i], rank}});
    if (!options_.lora.dora) continue;
    parameters.add(name + ".lora_magnitude",
                   at::linalg_vector_norm(linear.weight.value.narrow(0, columns[i], widths[i]), 2, at::IntArrayRef{1}),
                   {.decay = false});
    bindings_.push_back({&part.magnitude, {name + ".lora_magnitude"}, {widths[i]}});
  }
}

/// Each of `names` is `width` long.
void Encoder::add_scale(Slot& slot, std::vector<std::string> names, std::int64_t width, ParameterSet& parameters) {
  for (const std::string& name : names) parameters.add(name, at::ones({width}, at::kFloat), {.decay = false});
  const std::int64_t all = width * static_cast<std::int64_t>(names.size());
  bindings_.push_back({&slot, std::move(names), {all}});
}

void Encoder::add_bottleneck_adapter(std::optional<BottleneckSpec>& spec, const std::string& name,
                                     ParameterSet& parameters, Rng& rng) {
  const std::int64_t d = config_.width, m = options_.adapter->settings.size;
  if (m > d) {
    throw Exception({ErrorCode::kInvalidArgument,
                     fmt::format("settings.adapter.size is {}, the model is only {} wide", m, d),
                     "a bottleneck is narrower than the model"});
  }
  const auto normal = [&](std::vector<std::int64_t> shape) {
    at::Tensor t = at::empty(shape, at::kFloat);
    for (float *p = t.data_ptr<float>(), *end = p + t.numel(); p != end; ++p)
      *p = static_cast<float>(kAdapterStd * rng.normal());
    return t;
  };
  spec.emplace();
  spec->scale = options_.adapter->settings.scale;
  // Houlsby's own code has GELU; Pfeiffer's and the parallel one have ReLU.
  spec->activation = options_.adapter->place == AdapterPlace::kHoulsby ? Activation::kGelu : Activation::kRelu;
  const auto add = [&](Slot& slot, const std::string& rest, at::Tensor first, bool decay) {
    const auto shape = first.sizes().vec();
    parameters.add(name + rest, first, {.decay = decay});
    bindings_.push_back({&slot, {name + rest}, shape});
    bottleneck_names_.push_back(name + rest);
  };
  add(spec->down.weight, ".down.weight", normal({m, d}), true);
  add(spec->down_bias, ".down.bias", at::zeros({m}, at::kFloat), false);
  add(spec->up.weight, ".up.weight", normal({d, m}), true);
  add(spec->up.bias, ".up.bias", at::zeros({d}, at::kFloat), false);
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

at::Tensor Encoder::through(at::Tensor x, std::int64_t first, std::int64_t last, const PackedRows& rows,
                            std::uint64_t seed) const {
  const double p = options_.hidden_dropout;
  const std::int64_t d = config_.width;
  const bool parallel = options_.adapter && options_.adapter->place == AdapterPlace::kParallel;
  for (std::int64_t l = first; l < last; ++l) {
    const Layer& layer = layers_[static_cast<std::size_t>(l)];
    const auto lora_seed = [&](std::uint64_t place) { return site(seed, 1, l, place).seed; };
    at::Tensor qkv = linear(x, layer.qkv, lora_seed(2));
    if (layer.keys_values_scale.value.defined()) qkv = scale_columns(qkv, layer.keys_values_scale, d);
    at::Tensor o = linear(attention(qkv, rows, config_.heads), layer.attn_output, lora_seed(3));
    if (layer.after_attention) o = add_bottleneck(o, o, *layer.after_attention);
    x = add_norm(o, x, layer.attn_norm, site(seed, p, l, 0));
    at::Tensor h = gelu(linear(x, layer.ffn_up, lora_seed(4)), layer.ffn_up_bias);
    if (layer.inner_scale.value.defined()) h = scale_columns(h, layer.inner_scale, 0);
    o = linear(h, layer.ffn_down, lora_seed(5));
    if (layer.ffn_adapter) o = add_bottleneck(o, parallel ? x : o, *layer.ffn_adapter);
    x = add_norm(o, x, layer.ffn_norm, site(seed, p, l, 1));
  }
  return x;
}

std::vector<Encoder::Adapter> Encoder::adapters(const ParameterSet& parameters) const {
  std::vector<Adapter> found;
  for (std::int64_t l = 0; l < config_.layers; ++l) {
    for (const std::string& module : options_.lora_targets) {
      const std::string name = block(static_cast<int>(l), module);
      Adapter adapter{name,
                      parameters.at(name + ".lora_a").value.detach(),
                      parameters.at(name + ".lora_b").value.detach(),
                      {},
                      options_.lora.scale()};
      if (const auto first = first_.find(name); first != first_.end()) {  // B A - B0 A0 is a product of twice the rank
        adapter.a = at::cat({adapter.a, first->second.first}, 0);
        adapter.b = at::cat({adapter.b, -first->second.second}, 1);
      }
      if (options_.lora.dora) adapter.magnitude = parameters.at(name + ".lora_magnitude").value.detach();
      found.push_back(std::move(adapter));
    }
  }
  return found;
}

std::string_view Encoder::adapter_place() const {
  switch (options_.adapter->place) {
    case AdapterPlace::kHoulsby:
      return kPlaceHoulsby;
    case AdapterPlace::kPfeiffer:
      return kPlacePfeiffer;
    case AdapterPlace::kParallel:
      break;
  }
  return kPlaceParallel;
}

std::vector<Encoder::Named> Encoder::bottlenecks(const ParameterSet& parameters) const {
  std::vector<Named> found;
  for (const std::string& name : bottleneck_names_) found.push_back({name, parameters.at(name).value.detach()});
  return found;
}

nlohmann::ordered_json Encoder::describe(const BaseWeights& weights) const {
  return {{"architecture", weights.architecture()},
          {"layers", config_.layers},
          {"width", config_.width},
          {"labels", file_.n_labels}};
}

/// IA3's scale of a tensor, and whether it scales columns (the input) or rows (the output, its bias too).
std::pair<at::Tensor, bool> Encoder::ia3_of(const std::string& name, const ParameterSet& parameters) const {
  if (!options_.ia3) return {};
  const auto named = [&](std::string_view module, std::string_view scale) {
    const std::size_t at = name.find(module);
    return at == std::string::npos ? at::Tensor()
                                   : parameters.at(name.substr(0, at) + std::string(scale)).value.detach();
  };
  if (at::Tensor k = named("attn_k.", "ia3_k"); k.defined()) return {k, false};
  if (at::Tensor v = named("attn_v.", "ia3_v"); v.defined()) return {v, false};
  if (name.ends_with("ffn_down.weight")) return {named("ffn_down.", "ia3_ffn"), true};
  return {};
}

void Encoder::visit_merged(const BaseWeights& weights, const ParameterSet& parameters, double unused_decay,
                           bool changed_only, const std::function<void(const Named&)>& visit) const {
  const auto adapters_here = adapters(parameters);
  for (const std::string& name : weights.names()) {
    const bool here = parameters.contains(name);
    const auto adapter = std::find_if(adapters_here.begin(), adapters_here.end(),
                                      [&](const Adapter& a) { return name == a.module + ".weight"; });
    const auto [scale, columns] = ia3_of(name, parameters);
    if (changed_only && !here && adapter == adapters_here.end() && !scale.defined()) continue;
    if (!here) {
      at::Tensor value = weights.load(name);
      if (adapter != adapters_here.end()) {
        value.addmm_(adapter->b, adapter->a, 1, adapter->scale);
        if (adapter->magnitude.defined())
          value.mul_((adapter->magnitude / at::linalg_vector_norm(value, 2, at::IntArrayRef{1})).unsqueeze(1));
      }
      if (scale.defined()) value.mul_(columns ? scale : value.dim() == 2 ? scale.unsqueeze(1) : scale);
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
