#include "tune/export.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/zeros.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <set>
#include <utility>

#include "core/files.h"
#include "core/json.h"
#include "core/safetensors.h"
#include "tune/adapter_start.h"
#include "tune/hf_names.h"

namespace tailor::tune {

Status write_tensors(const std::filesystem::path& file, const std::vector<Encoder::Named>& tensors,
                     const std::map<std::string, std::string>& metadata) {
  std::vector<at::Tensor> alive;  // which may be copies
  std::vector<SafeTensor> out;
  for (const auto& [name, value] : tensors) {
    alive.push_back(value.cpu().contiguous());
    const std::span<const float> values(alive.back().data_ptr<float>(), static_cast<std::size_t>(value.numel()));
    out.push_back(safe_tensor<float>(name, "F32", value.sizes().vec(), values));
  }
  return write_safetensors(file, out, metadata);
}

static std::string escaped(std::string path) {
  for (std::size_t dot = path.find('.'); dot != std::string::npos; dot = path.find('.', dot + 2))
    path.insert(dot, 1, '\\');
  return path;
}

/// The adapted modules as PEFT's regular expression: "layer's number, one of these" where every layer has the same,
/// else each by itself. No list, since that matches name endings: "output.dense" would also mean
/// "attention.output.dense".
static std::string target_pattern(const std::vector<Encoder::Adapter>& adapters, std::string_view model_type,
                                  std::int64_t layers_in_all) {
  const std::string_view layers = hf_layer_prefix(model_type);
  std::vector<std::string> paths, modules;                 // escaped
  std::map<std::string, std::set<std::string>> by_module;  // module -> numbers of its layers
  for (const Encoder::Adapter& adapter : adapters) {
    const std::string rest = hf_module_of_encoder(adapter.module, model_type)->substr(layers.size());  // "3.attn.Wo"
    const std::size_t dot = rest.find('.');
    const std::string module = escaped(rest.substr(dot + 1));
    paths.push_back(escaped(rest));
    if (by_module[module].empty()) modules.push_back(module);
    by_module[module].insert(rest.substr(0, dot));
  }
  const bool everywhere = std::all_of(by_module.begin(), by_module.end(), [&](const auto& module) {
    return std::cmp_equal(module.second.size(), layers_in_all);
  });
  if (everywhere) return fmt::format(R"((.*\.)?{}\d+\.({}))", escaped(std::string(layers)), fmt::join(modules, "|"));
  return fmt::format(R"((.*\.)?{}({}))", escaped(std::string(layers)), fmt::join(paths, "|"));
}

Result<std::vector<std::string>> write_peft_adapter(const std::filesystem::path& dir,
                                                    const std::vector<Encoder::Adapter>& adapters,
                                                    const LoraSettings& lora, const BaseWeights& base) {
  const std::string type = hf_model_type(base);
  std::vector<Encoder::Named> tensors;
  for (const Encoder::Adapter& adapter : adapters) {
    const auto module = hf_module_of_encoder(adapter.module, type);
    if (!module) return Error{ErrorCode::kInternal, "no Hugging Face name for " + adapter.module, ""};
    tensors.push_back({fmt::format("base_model.model.{}.lora_A.weight", *module), adapter.a});
    tensors.push_back({fmt::format("base_model.model.{}.lora_B.weight", *module), adapter.b});
    if (adapter.magnitude.defined())
      tensors.push_back({fmt::format("base_model.model.{}.lora_magnitude_vector", *module), adapter.magnitude});
  }
  // PiSSA's adapter against the untouched weight has twice the rank; the same scale needs twice the alpha.
  const std::int64_t rank = adapters.front().a.size(0);
  const bool as_asked = rank == lora.r;
  const Json config = {{"peft_type", "LORA"},
                       {"task_type", "FEATURE_EXTRACTION"},
                       {"base_model_name_or_path", base.path().filename().string()},
                       {"r", rank},
                       {"lora_alpha", as_asked ? lora.alpha : lora.scale() * static_cast<double>(rank)},
                       {"lora_dropout", lora.dropout},
                       {"target_modules", target_pattern(adapters, type, EncoderConfig::read(base).layers)},
                       {"bias", "none"},
                       {"fan_in_fan_out", false},
                       {"inference_mode", true},
                       {"init_lora_weights", true},
                       {"modules_to_save", nullptr},
                       {"use_rslora", as_asked && lora.rslora},
                       {"use_dora", lora.dora}};
  TAILOR_CHECK(
      write_tensors(dir / "adapter_model.safetensors", tensors, {{"format", "pt"}, {kAdapterBase, identity_of(base)}}));
  TAILOR_CHECK(write_json_atomic(dir / "adapter_config.json", config));
  return std::vector<std::string>{"adapter_config.json", "adapter_model.safetensors"};
}

Result<std::vector<std::string>> write_hugging_face(
    const std::filesystem::path& dir, const BaseWeights& base,
    const std::function<void(const std::function<void(const Encoder::Named&)>&)>& visit) {
  const std::string type = hf_model_type(base);
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
