#include "tune/llama_lora.h"

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>

#include "core/rng.h"

namespace tailor::tune::llama {
namespace {

constexpr std::uint64_t kStream = 7000;

LlamaModule module_at(std::size_t i) {
  return static_cast<LlamaModule>(i);
}

Result<std::array<bool, kLlamaModules>> parse_targets(const std::vector<std::string>& names) {
  std::array<bool, kLlamaModules> targeted{};
  if (names.empty()) {
    return Error{ErrorCode::kInvalidArgument, "LoRA has no target modules", "name some, or all-linear"};
  }
  for (const std::string& name : names) {
    bool known = name == "all-linear";
    if (known) targeted.fill(true);
    for (std::size_t m = 0; m < kLlamaModules && !known; ++m) {
      const LlamaModuleName& n = name_of(module_at(m));
      if (name != n.hf && name != n.gguf && name != n.hf_path) continue;
      targeted[m] = true;
      known = true;
    }
    if (known) continue;
    std::vector<std::string_view> all;
    for (std::size_t m = 0; m < kLlamaModules; ++m) all.push_back(name_of(module_at(m)).hf);
    return Error{ErrorCode::kInvalidArgument, fmt::format("LoRA target module '{}' is not known", name),
                 fmt::format("known are {} and all-linear", fmt::join(all, ", "))};
  }
  return targeted;
}

}  // namespace

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
    if (m.out_begin < begin || m.out_begin >= end) continue;
    if (first < 0) first = m.rank_begin;
    Member copy = m;
    copy.out_begin -= begin;
    copy.rank_begin -= first;
    ranks += m.rank;
    part.members.push_back(std::move(copy));
  }
  if (part.members.empty()) return part;
  part.a = a.narrow(0, first, ranks);
  part.grad_a = grad_a.narrow(0, first, ranks);
  return part;
}

std::string lora_name(std::int64_t layer, LlamaModule module, char which) {
  return fmt::format("blk.{}.{}.lora_{}", layer, name_of(module).gguf, which);
}

Result<LoraAdapters> LoraAdapters::attach(const LlamaConfig& model, const LoraConfig& config, std::uint64_t seed,
                                          ParameterSet& parameters) {
  LoraAdapters adapters;
  adapters.model_ = model;
  adapters.config_ = config;
  adapters.first_ = parameters.size();
  TAILOR_TRY(adapters.targeted_, parse_targets(config.targets));
  if (!(config.dropout >= 0 && config.dropout < 1)) {
    return Error{ErrorCode::kInvalidArgument, fmt::format("LoRA dropout is {}", config.dropout),
                 "it must be at least 0 and below 1"};
  }
  if (!std::isfinite(config.alpha) || config.alpha == 0) {
    return Error{ErrorCode::kInvalidArgument, fmt::format("LoRA alpha is {}", config.alpha),
                 "it must be a number other than 0"};
  }
  for (std::size_t i = 0; i < kLlamaModules; ++i) {
    if (!adapters.targeted_[i]) continue;
    const std::int64_t most = std::min(in_features(model, module_at(i)), out_features(model, module_at(i)));
    if (config.rank < 1 || config.rank > most) {
      return Error{
          ErrorCode::kInvalidArgument,
          fmt::format("LoRA rank is {}, but {} has a dimension of {}", config.rank, name_of(module_at(i)).hf, most),
          fmt::format("choose a rank from 1 to {}", most)};
    }
  }
  for (std::int64_t layer = 0; layer < model.layers; ++layer) {
    for (std::size_t g = 0; g < kLinearGroups; ++g) {
      const auto modules = modules_of(static_cast<LinearGroup>(g));
      // The A's of a group lie next to one another, so that they are one matrix.
      for (const LlamaModule m : modules) {
        if (!adapters.targets(m)) continue;
        const std::int64_t in = in_features(model, m);
        at::Tensor a = at::empty({config.rank, in}, at::kFloat);
        Rng rng(seed, kStream + kLlamaModules * static_cast<std::uint64_t>(layer) + static_cast<std::uint64_t>(m));
        const double bound = 1.0 / std::sqrt(static_cast<double>(in));
        float* to = a.data_ptr<float>();
        for (std::int64_t i = 0; i < a.numel(); ++i) to[i] = static_cast<float>((2.0 * rng.uniform() - 1.0) * bound);
        parameters.add(lora_name(layer, m, 'a'), a);
      }
      for (const LlamaModule m : modules) {
        if (!adapters.targets(m)) continue;
        parameters.add(lora_name(layer, m, 'b'), at::zeros({out_features(model, m), config.rank}, at::kFloat),
                       {.rate_scale = config.b_rate_scale});
      }
    }
  }
  return adapters;
}

void LoraAdapters::bind(const ParameterSet& parameters) {
  groups_.assign(static_cast<std::size_t>(model_.layers), {});
  std::size_t next = first_;  // parameters stand in the order in which attach() added them
  for (std::int64_t layer = 0; layer < model_.layers; ++layer) {
    for (std::size_t g = 0; g < kLinearGroups; ++g) {
      LoraGroup& group = groups_[static_cast<std::size_t>(layer)][g];
      group.scale = config_.scale();
      group.dropout = config_.dropout;
      std::vector<const Parameter*> as, bs;
      const auto modules = modules_of(static_cast<LinearGroup>(g));
      for (const LlamaModule m : modules) {
        if (targets(m)) as.push_back(&parameters[next++]);
      }
      for (const LlamaModule m : modules) {
        if (targets(m)) bs.push_back(&parameters[next++]);
      }
      if (as.empty()) continue;
      const std::int64_t in = as.front()->value.size(1);
      const auto rows = config_.rank * static_cast<std::int64_t>(as.size());
      group.a = parameters.flat_values().narrow(0, as.front()->offset, rows * in).view({rows, in}).detach();
      group.grad_a = parameters.flat_grad().narrow(0, as.front()->offset, rows * in).view({rows, in});
      group.leaf = as.front()->value;
      std::int64_t out_begin = 0;
      std::size_t member = 0;
      for (const LlamaModule m : modules) {
        const std::int64_t out = out_features(model_, m);
        if (targets(m)) {
          group.members.push_back({out_begin, out, static_cast<std::int64_t>(member) * config_.rank, config_.rank,
                                   bs[member]->value.detach(), bs[member]->grad});
          ++member;
        }
        out_begin += out;
      }
    }
  }
}

}  // namespace tailor::tune::llama
