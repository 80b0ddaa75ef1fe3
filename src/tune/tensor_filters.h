#pragma once
/// Which tensors a method trains, by their GGUF names.

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <string_view>

#include "core/result.h"
#include "tune/parameters.h"
#include "tune/settings.h"

namespace tailor::tune {

inline bool is_norm_tensor(std::string_view tensor) {
  return tensor.find("_norm.") != std::string_view::npos;
}

/// The uppermost settings.upper_layers blocks. Throws where the model has fewer.
inline std::function<bool(std::string_view)> upper_layers_filter(std::int64_t layers, const Settings& settings) {
  const std::int64_t asked = settings.upper_layers;
  if (asked > layers) {
    throw Exception({ErrorCode::kInvalidArgument,
                     fmt::format("settings.upper_layers is {}, but the model has {} layers", asked, layers),
                     "train all of them with method full, or name fewer"});
  }
  return [from = layers - asked](std::string_view tensor) {
    constexpr std::string_view kBlock = "blk.";
    return tensor.starts_with(kBlock) && std::atoll(tensor.data() + kBlock.size()) >= from;
  };
}

/// The lowest block with something trained in it; `layers` where only what stands behind the blocks is trained, 0 where
/// anything else is.
inline std::int64_t first_trained_layer(const ParameterSet& parameters, std::int64_t layers) {
  std::int64_t first = layers;
  for (const Parameter& p : parameters) {
    const std::string_view name = p.name;
    constexpr std::string_view kBlock = "blk.";
    const bool behind = p.options.head || name.starts_with("output");
    if (!behind)
      first = std::min<std::int64_t>(first, name.starts_with(kBlock) ? std::atoll(p.name.c_str() + kBlock.size()) : 0);
  }
  return first;
}

}  // namespace tailor::tune
