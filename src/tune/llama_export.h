#pragma once
/// Writing adapters of a llama-family decoder: for PEFT, and for llama.cpp.

#include <filesystem>
#include <string>
#include <vector>

#include "core/result.h"
#include "tune/llama_lora.h"
#include "tune/llama_weights.h"
#include "tune/parameters.h"

namespace tailor::tune::llama {

/// adapter_config.json and adapter_model.safetensors, for PeftModel.from_pretrained on the Hugging Face model. GGUF
/// keeps the rotary pairs of q and k side by side, Hugging Face half a head apart: their B rows are put in that order.
Result<std::vector<std::string>> write_peft_adapter(const std::filesystem::path& dir, const LlamaWeights& weights,
                                                    const LoraAdapters& adapters, const ParameterSet& parameters);

/// One GGUF file: general.type "adapter", adapter.type "lora", tensors "<weight>.lora_a" [rank, in] and ".lora_b"
/// [out, rank] as f32, in the base file's own layout. llama.cpp scales by adapter.lora.alpha / rank.
Status write_gguf_adapter(const std::filesystem::path& file, const LlamaWeights& weights, const LoraAdapters& adapters,
                          const ParameterSet& parameters);

}  // namespace tailor::tune::llama
