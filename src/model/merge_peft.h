#pragma once
/// An adapter directory that PEFT wrote (core/peft_adapter.h), folded into its base model, a decoder or an encoder.

#include <filesystem>
#include <string>
#include <vector>

#include "core/result.h"

namespace tailor {

struct PeftMerge {
  /// What the adapter holds for a model with a head (the pooler, the classifier), and an encoder has not: modules.
  std::vector<std::string> left_out;
};

/// Writes `base` (GGUF) with the adapter in `directory` (adapter_config.json, adapter_model.safetensors) folded in;
/// atomic at `out`; types as write_changed_model() keeps them. Errors: another kind of adapter, weights as a pickle
/// (adapter_model.bin), a tensor that belongs to no module of the model or has another shape, half a pair, tokens that
/// the base has not, and an adapter that changes nothing.
Result<PeftMerge> merge_peft_adapter(const std::filesystem::path& base, const std::filesystem::path& directory,
                                     const std::filesystem::path& out);

}  // namespace tailor
