#include "tune/llama_export.h"

#include <ATen/core/Tensor.h>
#include <fmt/format.h>
#include <ggml.h>
#include <gguf.h>

#include <algorithm>
#include <memory>
#include <ostream>

#include "core/files.h"
#include "core/json.h"
#include "core/safetensors.h"

namespace tailor::tune::llama {
namespace {

struct Adapter {
  std::int64_t layer = 0;
  LlamaModule module = LlamaModule::kQ;
  const float* a = nullptr;
  const float* b = nullptr;
  std::int64_t in = 0, out = 0, rank = 0;
};

std::vector<Adapter> adapters_of(const LlamaConfig& config, const LoraAdapters& lora, const ParameterSet& parameters) {
  std::vector<Adapter> all;
  for (std::int64_t layer = 0; layer < config.layers; ++layer) {
    for (std::size_t m = 0; m < kLlamaModules; ++m) {
      const auto module = static_cast<LlamaModule>(m);
      if (!lora.targets(module)) continue;
      all.push_back({layer, module, parameters.at(lora_name(layer, module, 'a')).value.data_ptr<float>(),
                     parameters.at(lora_name(layer, module, 'b')).value.data_ptr<float>(), in_features(config, module),
                     out_features(config, module), lora.config().rank});
    }
  }
  return all;
}

/// Row h * dim + 2 j + s of GGUF is row h * dim + s * dim / 2 + j of Hugging Face.
std::vector<float> rows_for_hugging_face(const Adapter& a, std::int64_t head_dim) {
  std::vector<float> rows(static_cast<std::size_t>(a.out * a.rank));
  for (std::int64_t r = 0; r < a.out; ++r) {
    const std::int64_t in_head = r % head_dim;
    const std::int64_t to = r - in_head + (in_head % 2) * (head_dim / 2) + in_head / 2;
    std::copy_n(a.b + r * a.rank, a.rank, rows.data() + to * a.rank);
  }
  return rows;
}

}  // namespace

Result<std::vector<std::string>> write_peft_adapter(const std::filesystem::path& dir, const LlamaWeights& weights,
                                                    const LoraAdapters& adapters, const ParameterSet& parameters) {
  const LlamaConfig& config = weights.config();
  std::vector<std::vector<float>> permuted;  // kept until the file is written
  std::vector<SafeTensor> tensors;
  for (const Adapter& a : adapters_of(config, adapters, parameters)) {
    const std::string name = fmt::format("base_model.model.model.layers.{}.{}", a.layer, name_of(a.module).hf_path);
    std::span<const float> b(a.b, static_cast<std::size_t>(a.out * a.rank));
    if (a.module == LlamaModule::kQ || a.module == LlamaModule::kK) {
      permuted.push_back(rows_for_hugging_face(a, config.head_dim));
      b = permuted.back();
    }
    tensors.push_back(safe_tensor<float>(name + ".lora_A.weight", "F32", {a.rank, a.in},
                                         {a.a, static_cast<std::size_t>(a.rank * a.in)}));
    tensors.push_back(safe_tensor<float>(name + ".lora_B.weight", "F32", {a.out, a.rank}, b));
  }
  Json targets = Json::array();
  for (std::size_t m = 0; m < kLlamaModules; ++m) {
    const auto module = static_cast<LlamaModule>(m);
    if (adapters.targets(module)) targets.push_back(std::string(name_of(module).hf));
  }
  const LoraConfig& lora = adapters.config();
  const Json config_json = {{"peft_type", "LORA"},
                            {"task_type", "CAUSAL_LM"},
                            {"base_model_name_or_path", weights.path().filename().string()},
                            {"r", lora.rank},
                            {"lora_alpha", lora.alpha},
                            {"lora_dropout", lora.dropout},
                            {"target_modules", targets},
                            {"bias", "none"},
                            {"fan_in_fan_out", false},
                            {"inference_mode", true},
                            {"init_lora_weights", true},
                            {"modules_to_save", nullptr},
                            {"use_rslora", lora.rank_stabilised},
                            {"use_dora", false}};
  TAILOR_CHECK(write_safetensors(dir / "adapter_model.safetensors", tensors, {{"format", "pt"}}));
  TAILOR_CHECK(write_json_atomic(dir / "adapter_config.json", config_json));
  return std::vector<std::string>{"adapter_config.json", "adapter_model.safetensors"};
}

Status write_gguf_adapter(const std::filesystem::path& file, const LlamaWeights& weights, const LoraAdapters& adapters,
                          const ParameterSet& parameters) {
  const auto all = adapters_of(weights.config(), adapters, parameters);
  const std::unique_ptr<gguf_context, decltype(&gguf_free)> gguf(gguf_init_empty(), gguf_free);
  const LoraConfig& lora = adapters.config();
  gguf_set_val_str(gguf.get(), "general.architecture", "llama");
  gguf_set_val_str(gguf.get(), "general.type", "adapter");
  gguf_set_val_str(gguf.get(), "adapter.type", "lora");
  gguf_set_val_f32(gguf.get(), "adapter.lora.alpha", static_cast<float>(lora.scale() * static_cast<double>(lora.rank)));
  const std::size_t memory = ggml_tensor_overhead() * (2 * all.size() + 1);
  const std::unique_ptr<ggml_context, decltype(&ggml_free)> context(
      ggml_init({.mem_size = memory, .mem_buffer = nullptr, .no_alloc = true}), ggml_free);
  std::vector<std::pair<const float*, std::int64_t>> data;
  const auto add = [&](const std::string& name, std::int64_t rows, std::int64_t columns, const float* values) {
    ggml_tensor* t = ggml_new_tensor_2d(context.get(), GGML_TYPE_F32, columns, rows);
    ggml_set_name(t, name.c_str());
    gguf_add_tensor(gguf.get(), t);
    data.emplace_back(values, rows * columns);
  };
  for (const Adapter& a : all) {
    const std::string weight = fmt::format("blk.{}.{}.weight", a.layer, name_of(a.module).gguf);
    add(weight + ".lora_a", a.rank, a.in, a.a);
    add(weight + ".lora_b", a.out, a.rank, a.b);
  }
  return write_stream_atomic(file, [&](std::ostream& out) -> Status {
    std::string head(gguf_get_meta_size(gguf.get()), '\0');
    gguf_get_meta_data(gguf.get(), head.data());
    out.write(head.data(), static_cast<std::streamsize>(head.size()));
    const std::size_t alignment = gguf_get_alignment(gguf.get());
    for (const auto& [values, count] : data) {
      const std::size_t bytes = static_cast<std::size_t>(count) * sizeof(float);
      out.write(reinterpret_cast<const char*>(values), static_cast<std::streamsize>(bytes));
      const std::string padding((alignment - bytes % alignment) % alignment, '\0');
      out.write(padding.data(), static_cast<std::streamsize>(padding.size()));
    }
    return {};
  });
}

}  // namespace tailor::tune::llama
