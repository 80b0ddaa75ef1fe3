#include "tune/export.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/zeros.h>
#include <fmt/format.h>

#include "core/files.h"
#include "core/json.h"
#include "core/safetensors.h"
#include "tune/hf_names.h"

namespace tailor::tune {

Status write_tensors(const std::filesystem::path& file, const std::vector<Encoder::Named>& tensors,
                     const std::map<std::string, std::string>& metadata) {
  std::vector<at::Tensor> alive;  // .contiguous() may have made copies
  std::vector<SafeTensor> out;
  for (const auto& [name, value] : tensors) {
    alive.push_back(value.contiguous());
    const std::span<const float> values(alive.back().data_ptr<float>(), static_cast<std::size_t>(value.numel()));
    out.push_back(safe_tensor<float>(name, "F32", value.sizes().vec(), values));
  }
  return write_safetensors(file, out, metadata);
}

Result<std::vector<std::string>> write_peft_adapter(const std::filesystem::path& dir,
                                                    const std::vector<Encoder::Adapter>& adapters,
                                                    const LoraSettings& lora, const std::vector<std::string>& modules,
                                                    const BaseWeights& base) {
  const std::string type = base.text(kSourceModelType).value_or("bert");
  std::vector<Encoder::Named> tensors;
  for (const Encoder::Adapter& adapter : adapters) {
    const auto module = hf_module_of_encoder(adapter.module, type);
    if (!module) return Error{ErrorCode::kInternal, "no Hugging Face name for " + adapter.module, ""};
    tensors.push_back({fmt::format("base_model.model.{}.lora_A.weight", *module), adapter.a});
    tensors.push_back({fmt::format("base_model.model.{}.lora_B.weight", *module), adapter.b});
    if (adapter.magnitude.defined())
      tensors.push_back({fmt::format("base_model.model.{}.lora_magnitude_vector", *module), adapter.magnitude});
  }
  // A pattern, because the list form matches name endings: "output.dense" would also mean "attention.output.dense".
  std::string pattern;
  for (const std::string& module : modules) {
    std::string path = *hf_module_of_encoder("blk.0." + module, type);
    path.erase(0, hf_layer_prefix(type).size() + std::string_view("0.").size());
    for (std::size_t dot = path.find('.'); dot != std::string::npos; dot = path.find('.', dot + 2))
      path.insert(dot, "\\");
    pattern += (pattern.empty() ? "" : "|") + path;
  }
  std::string layers(hf_layer_prefix(type));  // "encoder.layer." as a pattern
  for (std::size_t dot = layers.find('.'); dot != std::string::npos; dot = layers.find('.', dot + 2))
    layers.insert(dot, "\\");
  // PiSSA's adapter against the untouched weight has twice the rank; the same scale needs twice the alpha.
  const std::int64_t rank = adapters.front().a.size(0);
  const bool as_asked = rank == lora.r;
  const Json config = {{"peft_type", "LORA"},
                       {"task_type", "FEATURE_EXTRACTION"},
                       {"base_model_name_or_path", base.path().filename().string()},
                       {"r", rank},
                       {"lora_alpha", as_asked ? lora.alpha : lora.scale() * static_cast<double>(rank)},
                       {"lora_dropout", lora.dropout},
                       {"target_modules", fmt::format(R"((.*\.)?{}\d+\.({}))", layers, pattern)},
                       {"bias", "none"},
                       {"fan_in_fan_out", false},
                       {"inference_mode", true},
                       {"init_lora_weights", true},
                       {"modules_to_save", nullptr},
                       {"use_rslora", as_asked && lora.rslora},
                       {"use_dora", lora.dora}};
  TAILOR_CHECK(write_tensors(dir / "adapter_model.safetensors", tensors, {{"format", "pt"}}));
  TAILOR_CHECK(write_json_atomic(dir / "adapter_config.json", config));
  return std::vector<std::string>{"adapter_config.json", "adapter_model.safetensors"};
}

Result<std::vector<std::string>> write_hugging_face(
    const std::filesystem::path& dir, const BaseWeights& base,
    const std::function<void(const std::function<void(const Encoder::Named&)>&)>& visit) {
  const std::string type = base.text(kSourceModelType).value_or("bert");
  const std::int64_t first = hf_first_position(base);
  std::vector<Encoder::Named> tensors;
  visit([&](const Encoder::Named& tensor) {
    const auto name = hf_name_of_encoder(tensor.name, type);
    if (!name) return;
    at::Tensor value = tensor.value;
    if (tensor.name == "position_embd.weight" && first > 0)
      value = at::cat({at::zeros({first, value.size(1)}, value.options()), value}, 0);
    if (tensor.name == "token_types.weight" && value.dim() == 1) value = value.unsqueeze(0);
    tensors.push_back({*name, value});
  });
  const std::filesystem::path to = dir / kHuggingFaceDirectory;
  TAILOR_CHECK(make_directories(to));
  TAILOR_CHECK(write_tensors(to / "model.safetensors", tensors, {{"format", "pt"}}));
  TAILOR_CHECK(write_json_atomic(to / "config.json", hf_encoder_config(base)));
  return std::vector<std::string>{fmt::format("{}/config.json", kHuggingFaceDirectory),
                                  fmt::format("{}/model.safetensors", kHuggingFaceDirectory)};
}

}  // namespace tailor::tune
