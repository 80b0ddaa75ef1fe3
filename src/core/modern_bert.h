#pragma once
/// What config.json says of ModernBERT's layers (Warner et al., arXiv:2412.13663), where BERT has a table of positions:
/// rotary positions, in layers that see a whole text and in layers that see a window of it.

#include <cstdint>

#include "core/json.h"
#include "core/result.h"

namespace tailor {

struct ModernBertLayers {
  std::int64_t window = 128;      // local_attention: a token of a local layer sees window / 2 tokens to either side
  std::int64_t global_every = 3;  // layers 0, n, 2 n, … are global
  double global_base = 160'000, local_base = 10'000;  // of the rotary frequencies
  bool is_global(std::int64_t layer) const { return layer % global_every == 0; }
};

/// Reads the names of transformers 4 (global_attn_every_n_layers, global_rope_theta, …) and 5 (layer_types,
/// rope_parameters). Refused with what is wrong, without a file's name, since llama.cpp does not compute it: biases, an
/// activation other than GELU, scaled rotary positions, layers that do not repeat "one global, n - 1 local".
Result<ModernBertLayers> read_modern_bert_layers(const Json& config, std::int64_t layers);

/// Adds the names of both generations.
void write_modern_bert_layers(const ModernBertLayers& from, std::int64_t layers, Json& config);

}  // namespace tailor
