#pragma once
/// A LoRA adapter folded into its base model:  W + (alpha / r) B A  (Hu et al., arXiv:2106.09685).
/// llama.cpp computes an adapter's two thin products beside every matrix, which makes a small model about twice as
/// slow; folded in, it costs nothing.

#include <filesystem>

#include "core/result.h"
#include "model/gguf_file.h"

namespace tailor {

/// Writes `base` (GGUF) with `adapter` (GGUF, as llama.cpp takes it) folded in; atomic at `out`. Matrices keep their
/// types, but those that are quantised become f16: in their own type a change below a step would be lost; with `least`
/// kF32 all that change become f32. Errors: the adapter has no alpha, half a pair, a tensor that the base has not, one
/// of another shape, or it changes nothing.
Status merge_adapter(const std::filesystem::path& base, const std::filesystem::path& adapter,
                     const std::filesystem::path& out, TensorType least = TensorType::kF16);

}  // namespace tailor
