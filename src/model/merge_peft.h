#pragma once
/// An adapter directory that PEFT wrote, folded into its base model: LoRA with rsLoRA's scale, DoRA's lengths, ranks
/// and alphas by pattern, trained biases, and modules that were trained whole (`modules_to_save`); and IA3.

#include <filesystem>

#include "core/result.h"

namespace tailor {

/// Writes the decoder `base` (GGUF) with the adapter in `directory` (adapter_config.json, adapter_model.safetensors)
/// folded in; atomic at `out`; types as write_changed_model() keeps them. Errors: another kind of adapter, weights as
/// a pickle (adapter_model.bin), a tensor that belongs to no module of the model or has another shape, half a pair,
/// tokens that the base has not, and an adapter that changes nothing.
Status merge_peft_adapter(const std::filesystem::path& base, const std::filesystem::path& directory,
                          const std::filesystem::path& out);

}  // namespace tailor
