#pragma once
/// A copy of a model's file in which some tensors have other values.

#include <filesystem>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "model/gguf_file.h"

namespace tailor {

struct TensorChange {
  std::function<Status(std::vector<float>& values)> apply;  // in ggml's order: shape[0] fastest
};

/// Writes `model` with `changes` (by name, each a tensor of it) made; atomic at `out`. Tensors keep their types, but
/// those that change and are quantised become f16: in their own type a change below a step would be lost. With `least`
/// kF32 all that change become f32. False: not one value came out otherwise than it was, and nothing is written.
Result<bool> write_changed_model(const GgufFile& model, const std::map<std::string, TensorChange, std::less<>>& changes,
                                 const std::filesystem::path& out, TensorType least = TensorType::kF16);

}  // namespace tailor
