#pragma once
/// What is added to a frozen decoder besides low-rank updates.
///
///   IA3          learnt scales of keys, values and the inner features of feed-forward   Liu et al., arXiv:2205.05638
///   bottlenecks  x + s act(x D^T + d) U^T + s u, after attention and feed-forward (Houlsby et al., arXiv:1902.00751),
///                after feed-forward (Pfeiffer et al., arXiv:2005.00247) or beside it (He et al., arXiv:2110.04366)

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "core/rng.h"
#include "tune/decoder_config.h"
#include "tune/encoder_functions.h"
#include "tune/parameters.h"
#include "tune/settings.h"
#include "tune/slot.h"
#include "tune/slot_bindings.h"

namespace tailor::tune::decoder {

/// Use: construct before ParameterSet::flatten(), bind() after it. It stays where it is while bound.
class DecoderAdapters {
 public:
  DecoderAdapters() = default;
  DecoderAdapters(const DecoderAdapters&) = delete;
  DecoderAdapters& operator=(const DecoderAdapters&) = delete;

  /// "blk.N.ia3_k", "blk.N.ia3_v" [kv width] and "blk.N.ia3_ffn" [ffn], all ones.
  void add_scales(const DecoderConfig& model, ParameterSet& parameters);
  /// "blk.N.adapter_attn.down.weight" …, close to the identity. Throws where the bottleneck is wider than the model.
  void add_bottlenecks(const DecoderConfig& model, AdapterPlace place, const AdapterSettings& settings,
                       ParameterSet& parameters, Rng& rng);
  void bind(const ParameterSet& parameters);

  struct Layer {
    Slot keys_values, inner;  // scales; undefined: none
    std::optional<BottleneckSpec> after_attention, beside_ffn, after_ffn;
  };
  const Layer& layer(std::int64_t i) const { return layers_[static_cast<std::size_t>(i)]; }
  bool empty() const { return layers_.empty(); }
  bool has_bottlenecks() const { return place_.has_value(); }
  AdapterPlace place() const { return *place_; }
  /// Names of the bottlenecks' parameters.
  const std::vector<std::string>& bottleneck_names() const { return names_; }

 private:
  std::vector<Layer> layers_;
  SlotBindings bindings_;
  std::vector<std::string> names_;
  std::optional<AdapterPlace> place_;
};

}  // namespace tailor::tune::decoder
