#include "tune/decoder_export.h"

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <ggml.h>
#include <gguf.h>

#include <algorithm>
#include <memory>
#include <ostream>

#include "core/bottleneck_file.h"
#include "core/files.h"
#include "core/json.h"
#include "core/safetensors.h"
#include "tune/adapter_start.h"

namespace tailor::tune::decoder {
namespace {

/// f32 tensors on their way into a safetensors file; keeps them alive.
class TensorList {
 public:
  void add(std::string name, at::Tensor value) {
    value = value.detach().cpu().contiguous();
    alive_.push_back(value);
    tensors_.push_back(
        safe_tensor<float>(std::move(name), "F32", value.sizes().vec(),
                           std::span<const float>(value.data_ptr<float>(), static_cast<std::size_t>(value.numel()))));
  }
  const std::vector<SafeTensor>& tensors() const { return tensors_; }

 private:
  std::vector<at::Tensor> alive_;
  std::vector<SafeTensor> tensors_;
};

/// Rows (of a matrix, or numbers of a vector) in Hugging Face's order.
at::Tensor rows_for_hugging_face(const DecoderConfig& config, const Module& module, const at::Tensor& rows) {
  std::vector<std::int64_t> from(static_cast<std::size_t>(rows.size(0)));
  for (std::int64_t r = 0; r < rows.size(0); ++r)
    from[static_cast<std::size_t>(hugging_face_row(config, module, r))] = r;
  return rows.index_select(0, at::tensor(from, at::kLong));
}

std::string hf_module(const DecoderConfig& config, std::int64_t layer, const Module& module) {
  return fmt::format("{}{}.{}", config.hf_layers, layer, module.hf_path);
}

/// Names where every layer has the same, else whole paths.
Json target_modules(const DecoderConfig& config, const LoraAdapters& adapters) {
  Json names = Json::array();
  bool uniform = true;
  for (std::size_t m = 0; m < config.modules.size(); ++m) {
    for (std::int64_t l = 0; l < config.layers; ++l) uniform &= adapters.targets(l, m) == adapters.targets(0, m);
  }
  for (std::size_t m = 0; m < config.modules.size(); ++m) {
    const Module& module = config.modules[m];
    if (uniform && !adapters.targets(0, m)) continue;
    // A name of two modules (GPT-2's c_proj) says which.
    const auto same = std::count_if(config.modules.begin(), config.modules.end(),
                                    [&](const Module& other) { return other.hf == module.hf; });
    if (uniform) names.push_back(std::string(same > 1 ? module.hf_path : module.hf));
    for (std::int64_t l = 0; !uniform && l < config.layers; ++l) {
      if (adapters.targets(l, m)) names.push_back(hf_module(config, l, module));
    }
  }
  return names;
}

}  // namespace

std::int64_t hugging_face_row(const DecoderConfig& c, const Module& module, std::int64_t row) {
  const std::int64_t dim = c.head_dim;
  const std::int64_t in_head = row % dim;
  if (c.positions == Positions::kRotaryPairs && (module.gguf == "attn_q" || module.gguf == "attn_k")) {
    // Row h * dim + 2 j + s of GGUF is row h * dim + s * dim / 2 + j of Hugging Face.
    return row - in_head + (in_head % 2) * (dim / 2) + in_head / 2;
  }
  const bool by_head = c.architecture == "gptneox" || c.architecture == "bloom" || c.architecture == "falcon";
  if (!by_head || module.gguf != "attn_qkv") return row;
  // Hugging Face: for each key head its queries, its key, its value.
  const std::int64_t queries = c.heads / c.kv_heads, group = (queries + 2) * dim;
  const std::int64_t head = row / dim;
  if (head < c.heads) return head / queries * group + head % queries * dim + in_head;
  const std::int64_t k = head - c.heads;
  if (k < c.kv_heads) return k * group + queries * dim + in_head;
  return (k - c.kv_heads) * group + (queries + 1) * dim + in_head;
}

Result<std::vector<std::string>> write_peft_adapter(const std::filesystem::path& dir, const DecoderWeights& weights,
                                                    const LoraAdapters& adapters, std::span<const WholeModule> whole,
                                                    const ParameterSet& parameters) {
  const DecoderConfig& config = weights.config();
  const LoraConfig& lora = adapters.config();
  TensorList tensors;
  std::int64_t rank = lora.rank;
  for (const LoraAdapters::Update& u : adapters.updates(parameters)) {
    const Module& module = config.modules[u.module];
    const std::string name = "base_model.model." + hf_module(config, u.layer, module);
    rank = u.a.size(0);
    tensors.add(name + ".lora_A.weight", u.a);
    tensors.add(name + ".lora_B.weight", rows_for_hugging_face(config, module, u.b));
    if (u.magnitude.defined())
      tensors.add(name + ".lora_magnitude_vector", rows_for_hugging_face(config, module, u.magnitude));
  }
  Json saved_whole;
  for (const WholeModule& module : whole) {
    for (const std::string& name : module.hugging_face) {
      saved_whole.push_back(name.substr(name.rfind('.') + 1));
      tensors.add("base_model.model." + name + ".weight", parameters.at(module.tensor).value);
    }
  }
  const DecoderWeights::TrainedRows& rows = weights.trained_rows();
  Json row_ids = rows.defined() ? Json::object() : Json();
  if (rows.defined()) {
    TAILOR_TRY(const auto tables, known_modules(config));
    for (const auto& [table, parameter] : {std::pair{&tables[0], kWordRows}, {&tables[1], kOutputRows}}) {
      if (!parameters.contains(parameter)) continue;  // an output layer that is the table of words
      row_ids[table->last()] = rows.ids;
      tensors.add(fmt::format("base_model.model.{}.token_adapter.trainable_tokens_delta", table->hugging_face),
                  parameters.at(parameter).value);
    }
  }
  // PiSSA's adapter against the untouched weight has twice the rank; the same scale needs another alpha.
  const bool as_asked = rank == lora.rank;
  const Json config_json = {{"peft_type", "LORA"},
                            {"task_type", "CAUSAL_LM"},
                            {"base_model_name_or_path", weights.path().filename().string()},
                            {"r", rank},
                            {"lora_alpha", as_asked ? lora.alpha : lora.scale() * static_cast<double>(rank)},
                            {"lora_dropout", lora.dropout},
                            {"target_modules", target_modules(config, adapters)},
                            {"bias", "none"},
                            {"fan_in_fan_out", config.hf_transposed},
                            {"inference_mode", true},
                            {"init_lora_weights", true},
                            {"modules_to_save", saved_whole},
                            {"trainable_token_indices", row_ids},
                            {"use_rslora", as_asked && lora.rank_stabilised},
                            {"use_dora", lora.magnitudes}};
  TAILOR_CHECK(write_safetensors(dir / "adapter_model.safetensors", tensors.tensors(),
                                 {{"format", "pt"}, {kAdapterBase, identity_of(weights.base())}}));
  TAILOR_CHECK(write_json_atomic(dir / "adapter_config.json", config_json));
  return std::vector<std::string>{"adapter_config.json", "adapter_model.safetensors"};
}

Result<std::vector<std::string>> write_peft_scales(const std::filesystem::path& dir, const DecoderWeights& weights,
                                                   const ParameterSet& parameters) {
  const DecoderConfig& config = weights.config();
  TensorList tensors;
  Json targets = Json::array(), feed_forward = Json::array();
  for (const Module& module : config.modules) {
    const bool ffn = module.gguf == "ffn_down", fused = module.gguf == "attn_qkv";
    if (!ffn && !fused && module.gguf != "attn_k" && module.gguf != "attn_v") continue;
    // "c_proj" alone would also mean the output of GPT-2's attention.
    targets.push_back(std::string(ffn ? module.hf_path : module.hf));
    if (ffn) feed_forward.push_back(std::string(module.hf_path));
    for (std::int64_t l = 0; l < config.layers; ++l) {
      const auto scale = [&](const char* what) { return parameters.at(fmt::format("blk.{}.{}", l, what)).value.cpu(); };
      at::Tensor values;
      if (ffn) {
        values = scale("ia3_ffn").unsqueeze(0);
      } else if (fused) {
        values = at::cat({at::ones({config.q_width()}, at::kFloat), scale("ia3_k"), scale("ia3_v")});
      } else {
        values = scale(module.gguf == "attn_k" ? "ia3_k" : "ia3_v");
      }
      if (!ffn) values = rows_for_hugging_face(config, module, values).unsqueeze(1);
      tensors.add("base_model.model." + hf_module(config, l, module) + ".ia3_l", values);
    }
  }
  const Json config_json = {{"peft_type", "IA3"},
                            {"task_type", "CAUSAL_LM"},
                            {"base_model_name_or_path", weights.path().filename().string()},
                            {"target_modules", targets},
                            {"feedforward_modules", feed_forward},
                            {"fan_in_fan_out", config.hf_transposed},
                            {"init_ia3_weights", true},
                            {"inference_mode", true},
                            {"modules_to_save", nullptr}};
  TAILOR_CHECK(write_safetensors(dir / "adapter_model.safetensors", tensors.tensors(), {{"format", "pt"}}));
  TAILOR_CHECK(write_json_atomic(dir / "adapter_config.json", config_json));
  return std::vector<std::string>{"adapter_config.json", "adapter_model.safetensors"};
}

Status write_bottlenecks(const std::filesystem::path& file, const DecoderAdapters& adapters, double scale,
                         const ParameterSet& parameters) {
  TensorList tensors;
  for (const std::string& name : adapters.bottleneck_names()) tensors.add(name, parameters.at(name).value);
  const std::string_view place = adapters.place() == AdapterPlace::kHoulsby    ? kPlaceHoulsby
                                 : adapters.place() == AdapterPlace::kPfeiffer ? kPlacePfeiffer
                                                                               : kPlaceParallel;
  return write_safetensors(file, tensors.tensors(),
                           {{"format", kBottleneckFormat},
                            {"version", "1"},
                            {"place", std::string(place)},
                            {"scale", fmt::format("{}", scale)}});
}

namespace {

/// One layer's tensor with the scales of IA3 in it; undefined: it has none.
at::Tensor scaled(const DecoderConfig& config, std::int64_t layer, const std::string& name, const at::Tensor& value,
                  const ParameterSet& parameters) {
  const auto scale = [&](const char* what) { return parameters.at(fmt::format("blk.{}.{}", layer, what)).value.cpu(); };
  const auto by_row = [&](const at::Tensor& s) { return value * (value.dim() == 2 ? s.unsqueeze(1) : s); };
  for (const char* kind : {"weight", "bias"}) {
    if (name == block_name(layer, "attn_k", kind)) return by_row(scale("ia3_k"));
    if (name == block_name(layer, "attn_v", kind)) return by_row(scale("ia3_v"));
    if (name == block_name(layer, "attn_qkv", kind))
      return by_row(at::cat({at::ones({config.q_width()}, at::kFloat), scale("ia3_k"), scale("ia3_v")}));
  }
  if (name == block_name(layer, "ffn_down")) return value * scale("ia3_ffn");
  return {};
}

}  // namespace

Status write_changed_weights(const std::filesystem::path& file, const DecoderWeights& weights, const LoraAdapters* lora,
                             const ParameterSet& parameters, const std::string& method) {
  const DecoderConfig& config = weights.config();
  TensorList tensors;
  for (const Parameter& p : parameters) {
    if (weights.base().has(p.name)) tensors.add(p.name, p.value);
  }
  const DecoderWeights::TrainedRows& rows = weights.trained_rows();
  for (const auto& [table, parameter] : {std::pair{"token_embd.weight", kWordRows}, {"output.weight", kOutputRows}}) {
    if (!parameters.contains(parameter)) continue;
    at::Tensor whole = weights.base().load(table);
    whole.index_copy_(0, rows.index, parameters.at(parameter).value.detach());
    tensors.add(table, whole);
  }
  if (lora != nullptr) {
    for (const LoraAdapters::Update& u : lora->updates(parameters)) {
      const std::string name = block_name(u.layer, config.modules[u.module].gguf);
      at::Tensor value = weights.as_kept(name);
      value.addmm_(u.b, u.a, 1, u.scale);
      if (u.magnitude.defined())
        value.mul_((u.magnitude / at::linalg_vector_norm(value, 2, at::IntArrayRef{1})).unsqueeze(1));
      tensors.add(name, value);
    }
  }
  for (std::int64_t l = 0; parameters.contains("blk.0.ia3_ffn") && l < config.layers; ++l) {
    for (const char* what : {"attn_k", "attn_v", "attn_qkv", "ffn_down"}) {
      for (const char* kind : {"weight", "bias"}) {
        const std::string name = block_name(l, what, kind);
        if (!weights.base().has(name)) continue;
        if (const at::Tensor value = scaled(config, l, name, weights.as_kept(name), parameters); value.defined())
          tensors.add(name, value);
      }
    }
  }
  return write_safetensors(file, tensors.tensors(),
                           {{"format", "tailor-weights"}, {"version", "1"}, {"method", method}});
}

Status write_gguf_adapter(const std::filesystem::path& file, const DecoderWeights& weights,
                          const LoraAdapters& adapters, const ParameterSet& parameters) {
  const auto all = adapters.updates(parameters);
  const std::unique_ptr<gguf_context, decltype(&gguf_free)> gguf(gguf_init_empty(), gguf_free);
  const DecoderConfig& config = weights.config();
  gguf_set_val_str(gguf.get(), "general.architecture", config.architecture.c_str());
  gguf_set_val_str(gguf.get(), "general.type", "adapter");
  gguf_set_val_str(gguf.get(), "adapter.type", "lora");
  const double alpha = all.front().scale * static_cast<double>(all.front().a.size(0));
  gguf_set_val_f32(gguf.get(), "adapter.lora.alpha", static_cast<float>(alpha));
  const std::size_t memory = ggml_tensor_overhead() * (2 * all.size() + 1);
  const std::unique_ptr<ggml_context, decltype(&ggml_free)> context(
      ggml_init({.mem_size = memory, .mem_buffer = nullptr, .no_alloc = true}), ggml_free);
  std::vector<std::pair<const float*, std::int64_t>> data;
  const auto add = [&](const std::string& name, const at::Tensor& values) {
    ggml_tensor* t = ggml_new_tensor_2d(context.get(), GGML_TYPE_F32, values.size(1), values.size(0));
    ggml_set_name(t, name.c_str());
    gguf_add_tensor(gguf.get(), t);
    data.emplace_back(values.data_ptr<float>(), values.numel());
  };
  for (const LoraAdapters::Update& u : all) {
    const std::string weight = block_name(u.layer, config.modules[u.module].gguf);
    add(weight + ".lora_a", u.a);
    add(weight + ".lora_b", u.b);
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

}  // namespace tailor::tune::decoder
