#pragma once
/// Writing what was trained of a decoder: for PEFT, for llama.cpp, and for whoever builds the whole model's file.

#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "core/result.h"
#include "tune/decoder_adapters.h"
#include "tune/decoder_lora.h"
#include "tune/decoder_weights.h"
#include "tune/parameters.h"
#include "tune/whole_modules.h"

namespace tailor::tune::decoder {

inline constexpr const char* kWeightsFile = "weights.safetensors";

/// Where row `row` of a module's weight stands in Hugging Face's: GGUF keeps llama's rotary pairs of q and k side by
/// side, Hugging Face half a head apart; GGUF keeps all of q, then k, then v, Hugging Face some families' by head.
std::int64_t hugging_face_row(const DecoderConfig& config, const Module& module, std::int64_t row);

/// adapter_config.json and adapter_model.safetensors, for PeftModel.from_pretrained on the Hugging Face model. `whole`:
/// what was trained whole beside the adapters.
Result<std::vector<std::string>> write_peft_adapter(const std::filesystem::path& dir, const DecoderWeights& weights,
                                                    const LoraAdapters& adapters, std::span<const WholeModule> whole,
                                                    const ParameterSet& parameters);
/// The same for IA3's scales.
Result<std::vector<std::string>> write_peft_scales(const std::filesystem::path& dir, const DecoderWeights& weights,
                                                   const ParameterSet& parameters);

/// One GGUF file: general.type "adapter", adapter.type "lora", tensors "<weight>.lora_a" [rank, in] and ".lora_b"
/// [out, rank] as f32, in the base file's own layout. llama.cpp scales by adapter.lora.alpha / rank. Not for
/// magnitudes.
Status write_gguf_adapter(const std::filesystem::path& file, const DecoderWeights& weights,
                          const LoraAdapters& adapters, const ParameterSet& parameters);

/// core/bottleneck_file.h.
Status write_bottlenecks(const std::filesystem::path& file, const DecoderAdapters& adapters, double scale,
                         const ParameterSet& parameters);

/// Every tensor that differs from the base's, by its GGUF name, f32, with scales and low-rank updates (`lora` may be
/// null) merged in. Metadata: format = "tailor-weights", version = "1", method.
Status write_changed_weights(const std::filesystem::path& file, const DecoderWeights& weights, const LoraAdapters* lora,
                             const ParameterSet& parameters, const std::string& method);

}  // namespace tailor::tune::decoder
