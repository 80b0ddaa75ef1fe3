#pragma once
/// Low-rank updates of the linear layers of a decoder:  y = x W^T + scale * drop(x) A^T B^T.
/// Paper: Hu et al., LoRA, arXiv:2106.09685, section 4.1.  A [rank, in] starts as PEFT's (Kaiming uniform with a =
/// sqrt(5), that is uniform in +-1 / sqrt(in)), B [out, rank] at zero.
/// DoRA (Liu et al., arXiv:2402.09353, equation 5): the rows of V = W + scale B A are rescaled to learnt lengths,
/// y = (x V^T) m / |V|, |V| taken as a constant.
/// PiSSA (Meng et al., arXiv:2404.02948): B A starts as the best approximation of W of its rank, and the frozen weight
/// is what remains.

#include <ATen/core/Tensor.h>

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "core/result.h"
#include "tune/adapter_start.h"
#include "tune/decoder_weights.h"
#include "tune/parameters.h"

namespace tailor::tune::decoder {

struct LoraConfig {
  std::int64_t rank = 16;  // >= 1, at most the smallest dimension it is put on; size and optimiser memory grow with it
  double alpha = 32;       // the update is scaled by alpha / rank, or alpha / sqrt(rank) with rank_stabilised
  double dropout = 0;      // in [0, 1), on the input of A; q, k and v (and gate and up) share one mask
  bool rank_stabilised = false;  // rsLoRA, Kalajdzievski, arXiv:2312.03732
  bool magnitudes = false;       // DoRA
  bool principal = false;        // PiSSA; needs a base in f32
  /// "q_proj", "attn_q" or "self_attn.q_proj", "all-linear", or a regular expression (ECMAScript) that a module's whole
  /// path matches: "model.layers.3.self_attn.q_proj" or "blk.3.attn_q".
  std::vector<std::string> targets = {"all-linear"};
  double b_rate_scale = 1;  // learning rate of B relative to A: LoRA+, Hayou et al., arXiv:2402.12354 (there 16)
  double scale() const;
};

/// Which modules of which layers the targets name, [layer][module]. Errors: none, or one that is not known.
Result<std::vector<std::vector<bool>>> parse_targets(const DecoderConfig& model, const std::vector<std::string>& names);

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
    Slot magnitude;        // [out]; undefined: none
    at::Tensor length;     // [out] |V| as of the last refresh()
    at::Tensor squares;    // [out] |W|^2, kept from one refresh() to the next
  };
  at::Tensor a, grad_a;  // [sum of ranks, in]; undefined: no adapter here
  at::Tensor leaf;       // one of the parameters; makes autograd visit the group
  std::vector<Member> members;
  double scale = 1;
  double dropout = 0;

  bool empty() const { return members.empty(); }
  bool has_magnitudes() const { return !members.empty() && members.front().magnitude.defined(); }
  /// What acts on outputs [begin, end), which are then counted from `begin`.
  LoraGroup slice(std::int64_t begin, std::int64_t end) const;
};

/// All adapters of a model. Use: attach() before ParameterSet::flatten(), bind() after it.
class LoraAdapters {
 public:
  /// Adds "blk.N.attn_q.lora_a" and ".lora_b" (and ".lora_magnitude") for every layer and target. Numbers of A come
  /// from Rng(seed, 7000 + 7 * layer + module), row by row: value = (2 * uniform - 1) / sqrt(in). With `principal`
  /// takes B A out of `weights`. With `start` its modules are the targets and its values the first ones. Errors: no
  /// target, an unknown one (all names are listed), rank below 1 or above a dimension, dropout out of range.
  static Result<LoraAdapters> attach(DecoderWeights& weights, const LoraConfig& config, std::uint64_t seed,
                                     ParameterSet& parameters, const AdapterStart* start = nullptr);
  void bind(const ParameterSet& parameters);
  /// Computes |V| anew. With magnitudes, after bind() and whenever the parameters changed.
  void refresh(DecoderWeights& weights);

  const LoraConfig& config() const { return config_; }
  const LoraGroup& group(std::int64_t layer, LinearGroup group) const {
    return groups_[static_cast<std::size_t>(layer)][static_cast<std::size_t>(group)];
  }
  bool targets(std::int64_t layer, std::size_t module) const {
    return targeted_[static_cast<std::size_t>(layer)][module];
  }

  /// What was learnt of one module, against the untouched weight:  W + scale B A, rows rescaled to `magnitude`. In the
  /// processor's memory.
  struct Update {
    std::int64_t layer = 0;
    std::size_t module = 0;
    at::Tensor a, b;       // [r, in], [out, r]; with `principal` [2 r, in], [out, 2 r]
    at::Tensor magnitude;  // [out]; undefined: none
    double scale = 1;
  };
  std::vector<Update> updates(const ParameterSet& parameters) const;

 private:
  struct Start {
    at::Tensor a, b;
  };
  DecoderConfig model_;
  LoraConfig config_;
  std::size_t first_ = 0;  // index of the first of ours in the set
  std::vector<std::vector<bool>> targeted_;
  std::vector<std::vector<Start>> starts_;  // principal: [layer][module]
  std::vector<std::array<LoraGroup, kLinearGroups>> groups_;
};

std::string lora_name(const DecoderConfig& config, std::int64_t layer, std::size_t module, std::string_view which);

}  // namespace tailor::tune::decoder
