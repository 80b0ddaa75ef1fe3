#pragma once
/// Writing what was trained: safetensors of tensors, and adapters as the PEFT library lays them out.

#include <filesystem>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "core/result.h"
#include "tune/encoder.h"
#include "tune/settings.h"
#include "tune/weights.h"

namespace tailor::tune {

/// All as F32, atomically.
Status write_tensors(const std::filesystem::path& file, const std::vector<Encoder::Named>& tensors,
                     const std::map<std::string, std::string>& metadata);

/// adapter_config.json and adapter_model.safetensors for PeftModel.from_pretrained on the bare encoder (BertModel …)
/// that `base` is or was imported from; returns their names.
Result<std::vector<std::string>> write_peft_adapter(const std::filesystem::path& dir,
                                                    const std::vector<Encoder::Adapter>& adapters,
                                                    const LoraSettings& lora, const BaseWeights& base);

inline constexpr const char* kHuggingFaceDirectory = "huggingface";

/// config.json and model.safetensors (f32) in `dir`/huggingface, under the names of the family that `base` is or was
/// imported from: what transformers' from_pretrained reads as the bare encoder (BertModel, DistilBertModel,
/// RobertaModel, ModernBertModel). `visit` calls back with every tensor of the encoder, by GGUF name. Rows of RoBERTa's
/// position table that belong to padding, which a GGUF file does not hold, are 0. Returns the files' names relative to
/// `dir`.
Result<std::vector<std::string>> write_hugging_face(
    const std::filesystem::path& dir, const BaseWeights& base,
    const std::function<void(const std::function<void(const Encoder::Named&)>&)>& visit);

}  // namespace tailor::tune
