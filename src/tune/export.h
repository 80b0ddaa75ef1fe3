#pragma once
/// Writing what was trained: safetensors of tensors, and adapters as the PEFT library lays them out.

#include <filesystem>
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
                                                    const LoraSettings& lora, const std::vector<std::string>& modules,
                                                    const BaseWeights& base);

}  // namespace tailor::tune
