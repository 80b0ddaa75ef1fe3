#include "tune/decoder_lora.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <regex>

#include "core/rng.h"

namespace tailor::tune::decoder {
namespace {

constexpr std::uint64_t kStream = 7000;
constexpr std::uint64_t kStreamsALayer = 7;

bool names_module(const std::string& name, const Module& m) {
  return name == "all-linear" || name == m.hf || name == m.gguf || name == m.hf_path;
}

Error unknown_target(const DecoderConfig& model, const std::string& name) {
  std::vector<std::string_view> all;
  for (const Module& m : model.modules) {
    if (std::find(all.begin(), all.end(), m.hf) == all.end()) all.push_back(m.hf);
  }
  return {
      ErrorCode::kInvalidArgument, fmt::format("LoRA target module '{}' is not known", name),
      fmt::format("known are {} and all-linear, or a regular expression that a module's whole path matches, such as "
                  "{}0.{}",
                  fmt::join(all, ", "), model.hf_layers, model.modules.front().hf_path)};
}

Status check(const DecoderConfig& model, const LoraConfig& config, const std::vector<std::vector<bool>>& targeted) {
  if (!(config.dropout >= 0 && config.dropout < 1)) {
    return Error{ErrorCode::kInvalidArgument, fmt::format("LoRA dropout is {}", config.dropout),
                 "it must be at least 0 and below 1"};
  }
  if (!std::isfinite(config.alpha) || config.alpha == 0) {
    return Error{ErrorCode::kInvalidArgument, fmt::format("LoRA alpha is {}", config.alpha),
                 "it must be a number other than 0"};
  }
  for (std::size_t i = 0; i < model.modules.size(); ++i) {
    if (std::none_of(targeted.begin(), targeted.end(), [i](const auto& layer) { return layer[i]; })) continue;
    const std::int64_t most = std::min(model.modules[i].in, model.modules[i].out);
    if (config.rank < 1 || config.rank > most) {
      return Error{ErrorCode::kInvalidArgument,
                   fmt::format("LoRA rank is {}, but {} has a dimension of {}", config.rank, model.modules[i].hf, most),
                   fmt::format("choose a rank from 1 to {}", most)};
    }
  }
  return {};
}

at::Tensor uniform_start(std::int64_t rank, std::int64_t in, Rng rng) {
  at::Tensor a = at::empty({rank, in}, at::kFloat);
  const double bound = 1.0 / std::sqrt(static_cast<double>(in));
  float* to = a.data_ptr<float>();
  for (std::int64_t i = 0; i < a.numel(); ++i) to[i] = static_cast<float>((2.0 * rng.uniform() - 1.0) * bound);
  return a;
}

/// The largest singular triples of `weight` [out, in], divided between the two:  scale B A  is its best approximation
/// of that rank. By the eigenvectors of the smaller Gram matrix in double precision, which is many times cheaper than
/// the whole decomposition.
void principal_parts(const at::Tensor& weight, double scale, std::int64_t rank, at::Tensor& a, at::Tensor& b) {
  const at::Tensor w = weight.to(at::kDouble);
  const bool wide = w.size(1) > w.size(0);
  const at::Tensor gram = wide ? at::mm(w, w.t()) : at::mm(w.t(), w);
  const auto [values, vectors] = at::linalg_eigh(gram);  // rising
  const std::int64_t n = gram.size(0);
  const at::Tensor top = vectors.narrow(1, n - rank, rank).flip(1);
  const at::Tensor s = at::sqrt(at::clamp_min(values.narrow(0, n - rank, rank).flip(0), 1e-30));
  const at::Tensor root = at::sqrt(s / scale);
  // The other side's vectors follow from W = U S V^T.
  const at::Tensor u = wide ? top : at::mm(w, top) / s;
  const at::Tensor v = wide ? at::mm(w.t(), top) / s : top;
  // Singular vectors have no sign of their own: the largest number of each row of A is above zero.
  const at::Tensor largest = at::argmax(at::abs(v), 0, /*keepdim=*/true);
  const at::Tensor signs = at::sign(v.gather(0, largest));
  a = (v * root * signs).t().contiguous().to(at::kFloat);
  b = (u * root * signs).contiguous().to(at::kFloat);
}

}  // namespace

Result<std::vector<std::vector<bool>>> parse_targets(const DecoderConfig& model,
                                                     const std::vector<std::string>& names) {
  if (names.empty()) {
    return Error{ErrorCode::kInvalidArgument, "LoRA has no target modules", "name some, or all-linear"};
  }
  const auto layers = static_cast<std::size_t>(model.layers);
  std::vector<std::vector<bool>> targeted(layers, std::vector<bool>(model.modules.size(), false));
  for (const std::string& name : names) {
    bool known = false;
    for (std::size_t m = 0; m < model.modules.size(); ++m) {
      if (!names_module(name, model.modules[m])) continue;
      known = true;
      for (auto& layer : targeted) layer[m] = true;
    }
    if (known) continue;
    if (name.find_first_of(".*+?()[]|\\^$") == std::string::npos) return unknown_target(model, name);
    std::regex pattern;
    try {
      pattern = std::regex(name);
    } catch (const std::regex_error& error) {
      return Error{ErrorCode::kInvalidArgument,
                   fmt::format("LoRA target '{}' is no regular expression: {}", name, error.what()), ""};
    }
    for (std::size_t l = 0; l < layers; ++l) {
      for (std::size_t m = 0; m < model.modules.size(); ++m) {
        const Module& module = model.modules[m];
        if (!std::regex_match(fmt::format("{}{}.{}", model.hf_layers, l, module.hf_path), pattern) &&
            !std::regex_match(fmt::format("blk.{}.{}", l, module.gguf), pattern))
          continue;
        targeted[l][m] = true;
        known = true;
      }
    }
    if (!known) return unknown_target(model, name);
  }
  return targeted;
}

double LoraConfig::scale() const {
  return rank_stabilised ? alpha / std::sqrt(static_cast<double>(rank)) : alpha / static_cast<double>(rank);
}

LoraGroup LoraGroup::slice(std::int64_t begin, std::int64_t end) const {
  LoraGroup part;
  part.scale = scale;
  part.dropout = dropout;
  part.leaf = leaf;
  std::int64_t first = -1;
  std::int64_t ranks = 0;
  for (const Member& m : members) {
    const std::int64_t from = std::max(begin, m.out_begin), to = std::min(end, m.out_begin + m.out);
    if (from >= to) continue;
    if (first < 0) first = m.rank_begin;
    Member copy = m;
    const auto cut = [&](at::Tensor& t) {
      if (t.defined()) t = t.narrow(0, from - m.out_begin, to - from);
    };
    cut(copy.b);
    cut(copy.grad_b);
    cut(copy.magnitude.grad);
    cut(copy.length);
    if (copy.magnitude.defined())
      copy.magnitude.value = copy.magnitude.value.detach().narrow(0, from - m.out_begin, to - from);
    copy.out = to - from;
    copy.out_begin = from - begin;
    copy.rank_begin -= first;
    ranks += m.rank;
    part.members.push_back(std::move(copy));
  }
  if (part.members.empty()) return part;
  part.a = a.narrow(0, first, ranks);
  part.grad_a = grad_a.narrow(0, first, ranks);
  return part;
}

std::string lora_name(const DecoderConfig& config, std::int64_t layer, std::size_t module, std::string_view which) {
  return block_name(layer, config.modules[module].gguf, fmt::format("lora_{}", which));
}

Result<LoraAdapters> LoraAdapters::attach(DecoderWeights& weights, const LoraConfig& config, std::uint64_t seed,
                                          ParameterSet& parameters, const AdapterStart* start) {
  const DecoderConfig& model = weights.config();
  LoraAdapters adapters;
  adapters.model_ = model;
  adapters.config_ = config;
  adapters.first_ = parameters.size();
  if (start == nullptr) {
    TAILOR_TRY(adapters.targeted_, parse_targets(model, config.targets));
  } else {
    for (std::int64_t l = 0; l < model.layers; ++l) {
      std::vector<bool>& layer = adapters.targeted_.emplace_back();
      for (const Module& m : model.modules)
        layer.push_back(start->modules.contains(fmt::format("blk.{}.{}", l, m.gguf)));
    }
  }
  TAILOR_CHECK(check(model, config, adapters.targeted_));
  if (config.principal && weights.storage() != WeightStorage::kFloat) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("PiSSA takes its start out of the base, which {} here",
                             weights.storage() == WeightStorage::kBf16 ? "is rounded to bf16" : "stays in its blocks"),
                 "use LoRA on such a base"};
  }
  if (config.principal)
    adapters.starts_.assign(static_cast<std::size_t>(model.layers), std::vector<Start>(model.modules.size()));
  for (std::int64_t layer = 0; layer < model.layers; ++layer) {
    for (std::size_t g = 0; g < kLinearGroups; ++g) {
      const auto group = static_cast<LinearGroup>(g);
      std::vector<std::size_t> chosen;
      std::vector<Start> starts;
      std::vector<at::Tensor> lengths;
      std::int64_t row = 0;
      for (const Module& m : model.of(group)) {
        const std::int64_t begin = row;
        row += m.out;
        const std::size_t module = model.index(m);
        if (!adapters.targets(layer, module)) continue;
        chosen.push_back(module);
        Start first;
        at::Tensor weight;
        if (config.principal || config.magnitudes) weight = weights.group(layer, group).narrow(0, begin, m.out);
        if (config.magnitudes) lengths.push_back(at::linalg_vector_norm(weight, 2, at::IntArrayRef{1}));
        if (config.principal) {
          principal_parts(weight, config.scale(), config.rank, first.a, first.b);
          weight.addmm_(first.b, first.a, 1, -config.scale());
          adapters.starts_[static_cast<std::size_t>(layer)][module] = first;
        } else if (start != nullptr) {
          const AdapterStart::Module& given = start->modules.at(fmt::format("blk.{}.{}", layer, m.gguf));
          first = {given.a, given.b};
          if (config.magnitudes) lengths.back() = given.magnitude;
        } else {
          const std::uint64_t stream = kStream + kStreamsALayer * static_cast<std::uint64_t>(layer) + module;
          first = {uniform_start(config.rank, m.in, Rng(seed, stream)), at::zeros({m.out, config.rank}, at::kFloat)};
        }
        starts.push_back(std::move(first));
      }
      // The A's of a group lie next to one another, so that they are one matrix.
      for (std::size_t i = 0; i < chosen.size(); ++i)
        parameters.add(lora_name(model, layer, chosen[i], "a"), starts[i].a);
      for (std::size_t i = 0; i < chosen.size(); ++i)
        parameters.add(lora_name(model, layer, chosen[i], "b"), starts[i].b, {.rate_scale = config.b_rate_scale});
      for (std::size_t i = 0; i < lengths.size(); ++i)
        parameters.add(lora_name(model, layer, chosen[i], "magnitude"), lengths[i], {.decay = false});
    }
  }
  return adapters;
}

void LoraAdapters::bind(const ParameterSet& parameters) {
  groups_.assign(static_cast<std::size_t>(model_.layers), {});
  for (std::int64_t layer = 0; layer < model_.layers; ++layer) {
    for (std::size_t g = 0; g < kLinearGroups; ++g) {
      LoraGroup& group = groups_[static_cast<std::size_t>(layer)][g];
      group.scale = config_.scale();
      group.dropout = config_.dropout;
      std::int64_t out_begin = 0, rows = 0, offset = 0, in = 0;
      for (const Module& m : model_.of(static_cast<LinearGroup>(g))) {
        const std::size_t module = model_.index(m);
        if (targets(layer, module)) {
          const Parameter& a = parameters.at(lora_name(model_, layer, module, "a"));
          const Parameter& b = parameters.at(lora_name(model_, layer, module, "b"));
          if (group.members.empty()) {
            group.leaf = a.value;
            offset = a.offset;
            in = m.in;
          }
          LoraGroup::Member member{out_begin, m.out, rows, config_.rank, b.value.detach(), b.grad, {}, {}, {}};
          if (config_.magnitudes) {
            const Parameter& length = parameters.at(lora_name(model_, layer, module, "magnitude"));
            member.magnitude = {length.value, length.grad};
          }
          group.members.push_back(std::move(member));
          rows += config_.rank;
        }
        out_begin += m.out;
      }
      if (group.members.empty()) continue;
      group.a = parameters.flat_values().narrow(0, offset, rows * in).view({rows, in}).detach();
      group.grad_a = parameters.flat_grad().narrow(0, offset, rows * in).view({rows, in});
    }
  }
}

void LoraAdapters::refresh(DecoderWeights& weights) {
  if (!config_.magnitudes) return;
  const at::NoGradGuard no_grad;
  for (std::int64_t layer = 0; layer < model_.layers; ++layer) {
    for (std::size_t g = 0; g < kLinearGroups; ++g) {
      LoraGroup& group = groups_[static_cast<std::size_t>(layer)][g];
      if (group.empty()) continue;
      const at::Tensor w = weights.group(layer, static_cast<LinearGroup>(g));
      for (LoraGroup::Member& m : group.members) {
        const at::Tensor rows = w.narrow(0, m.out_begin, m.out);
        const at::Tensor a = group.a.narrow(0, m.rank_begin, m.rank);
        // |w + s A^T b|^2 = |w|^2 + 2 s b (A w) + s^2 b (A A^T) b, a row at a time.
        const at::Tensor along = at::mm(rows, a.t());
        const at::Tensor within = at::mm(m.b, at::mm(a, a.t()));
        if (!m.squares.defined()) m.squares = at::sum(rows * rows, 1);
        m.length = at::sqrt(m.squares + 2 * group.scale * at::sum(along * m.b, 1) +
                            group.scale * group.scale * at::sum(within * m.b, 1));
      }
    }
  }
}

std::vector<LoraAdapters::Update> LoraAdapters::updates(const ParameterSet& parameters) const {
  std::vector<Update> all;
  for (std::int64_t layer = 0; layer < model_.layers; ++layer) {
    for (std::size_t m = 0; m < model_.modules.size(); ++m) {
      if (!targets(layer, m)) continue;
      Update u{layer,
               m,
               parameters.at(lora_name(model_, layer, m, "a")).value.detach().cpu(),
               parameters.at(lora_name(model_, layer, m, "b")).value.detach().cpu(),
               {},
               config_.scale()};
      if (!starts_.empty()) {  // B A - B0 A0 is a product of twice the rank
        const Start& start = starts_[static_cast<std::size_t>(layer)][m];
        u.a = at::cat({u.a, start.a.cpu()}, 0);
        u.b = at::cat({u.b, -start.b.cpu()}, 1);
      }
      if (config_.magnitudes)
        u.magnitude = parameters.at(lora_name(model_, layer, m, "magnitude")).value.detach().cpu();
      all.push_back(std::move(u));
    }
  }
  return all;
}

}  // namespace tailor::tune::decoder
