#pragma once
/// Low-rank updates of the linear layers of a llama-family decoder:  y = x W^T + scale * drop(x) A^T B^T.
/// Paper: Hu et al., LoRA, arXiv:2106.09685, section 4.1.  A [rank, in] starts as PEFT's (Kaiming uniform with a =
/// sqrt(5), that is uniform in +-1 / sqrt(in)), B [out, rank] at zero.

#include <ATen/core/Tensor.h>

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/result.h"
#include "tune/llama_weights.h"
#include "tune/parameters.h"

namespace tailor::tune::llama {

struct LoraConfig {
  std::int64_t rank = 16;  // >= 1, at most the smallest dimension it is put on; size and optimiser memory grow with it
  double alpha = 32;       // the update is scaled by alpha / rank, or alpha / sqrt(rank) with rank_stabilised
  double dropout = 0;      // in [0, 1), on the input of A; q, k and v (and gate and up) share one mask
  bool rank_stabilised = false;                       // rsLoRA, Kalajdzievski, arXiv:2312.03732
  std::vector<std::string> targets = {"all-linear"};  // "q_proj" or "attn_q" …, "all-linear"
  double b_rate_scale = 1;  // learning rate of B relative to A: LoRA+, Hayou et al., arXiv:2402.12354 (there 16)
  double scale() const;
};

/// Dropout's masks are a function of these numbers and the layer, and nothing else.
struct DropoutKey {
  std::uint64_t seed = 0;
  std::int64_t step = 0;
  std::int64_t micro_batch = 0;
};

/// The adapters of one group of modules that read the same input; views into the flat buffers. Members stand in the
/// order of their outputs; their A's lie stacked in `a`.
struct LoraGroup {
  struct Member {
    std::int64_t out_begin = 0;  // first output of the module in the group's product
    std::int64_t out = 0;
    std::int64_t rank_begin = 0;  // first row in a
    std::int64_t rank = 0;
    at::Tensor b, grad_b;  // [out, rank]
  };
  at::Tensor a, grad_a;  // [sum of ranks, in]; undefined: no adapter here
  at::Tensor leaf;       // one of the parameters; makes autograd visit the group
  std::vector<Member> members;
  double scale = 1;
  double dropout = 0;

  bool empty() const { return members.empty(); }
  /// Only the members with outputs in [begin, end), which are then counted from `begin`.
  LoraGroup slice(std::int64_t begin, std::int64_t end) const;
};

/// All adapters of a model. Use: attach() before ParameterSet::flatten(), bind() after it.
class LoraAdapters {
 public:
  /// Adds "blk.N.attn_q.lora_a" and ".lora_b" for every layer and target. Numbers of A come from
  /// Rng(seed, 7000 + 7 * layer + module), row by row: value = (2 * uniform - 1) / sqrt(in).
  /// Errors: no target, an unknown one (all names are listed), rank below 1 or above a dimension, dropout out of range.
  static Result<LoraAdapters> attach(const LlamaConfig& model, const LoraConfig& config, std::uint64_t seed,
                                     ParameterSet& parameters);
  void bind(const ParameterSet& parameters);

  const LoraConfig& config() const { return config_; }
  const LoraGroup& group(std::int64_t layer, LinearGroup group) const {
    return groups_[static_cast<std::size_t>(layer)][static_cast<std::size_t>(group)];
  }
  bool targets(LlamaModule module) const { return targeted_[static_cast<std::size_t>(module)]; }

 private:
  LlamaConfig model_;
  LoraConfig config_;
  std::size_t first_ = 0;  // index of the first of ours in the set
  std::array<bool, kLlamaModules> targeted_{};
  std::vector<std::array<LoraGroup, kLinearGroups>> groups_;
};

std::string lora_name(std::int64_t layer, LlamaModule module, char which);  // which: 'a' or 'b'

}  // namespace tailor::tune::llama
