#pragma once
/// For tests: the tiny BERT, DistilBERT, RoBERTa and ModernBERT of tests/golden/encoder_objectives_golden.py, as a
/// Hugging Face directory and as the GGUF file that importing it gives.

#include <ggml.h>
#include <gguf.h>

#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "core/files.h"
#include "core/json.h"
#include "core/rng.h"
#include "core/safetensors.h"
#include "tune/hf_names.h"

namespace tailor::tune::testing {

struct FamilyTensor {
  std::string name;  // transformers'
  std::vector<std::int64_t> shape;
  std::vector<float> values;
};

inline constexpr std::int64_t kFamilyWidth = 16, kFamilyInner = 32, kFamilyLayers = 2, kFamilyWords = 100,
                              kFamilyPlaces = 40, kModernLayers = 4, kModernWindow = 4;

inline std::int64_t padding_rows(const std::string& family) {
  return family == "roberta" ? 2 : 0;
}

inline std::vector<FamilyTensor> family_tensors(const std::string& family) {
  const bool distil = family == "distilbert";
  const std::int64_t d = kFamilyWidth, f = kFamilyInner;
  std::vector<FamilyTensor> tensors;
  const auto add = [&](const std::string& name, std::vector<std::int64_t> shape) {
    std::int64_t count = 1;
    for (const std::int64_t n : shape) count *= n;
    const bool norm = name.ends_with("Norm.weight") || name.ends_with("norm.weight");
    Rng rng(1, tensors.size());
    FamilyTensor tensor{name, std::move(shape), {}};
    for (std::int64_t i = 0; i < count; ++i)
      tensor.values.push_back(static_cast<float>(0.2 * rng.normal() + (norm ? 1 : 0)));
    tensors.push_back(std::move(tensor));
  };
  if (family == "modernbert") {
    add("embeddings.tok_embeddings.weight", {kFamilyWords, d});
    add("embeddings.norm.weight", {d});
    for (std::int64_t layer = 0; layer < kModernLayers; ++layer) {
      const std::string prefix = "layers." + std::to_string(layer) + ".";
      if (layer > 0) add(prefix + "attn_norm.weight", {d});
      add(prefix + "attn.Wqkv.weight", {3 * d, d});
      add(prefix + "attn.Wo.weight", {d, d});
      add(prefix + "mlp_norm.weight", {d});
      add(prefix + "mlp.Wi.weight", {2 * f, d});
      add(prefix + "mlp.Wo.weight", {d, f});
    }
    add("final_norm.weight", {d});
    return tensors;
  }
  add("embeddings.word_embeddings.weight", {kFamilyWords, d});
  add("embeddings.position_embeddings.weight", {kFamilyPlaces + padding_rows(family), d});
  if (!distil) add("embeddings.token_type_embeddings.weight", {family == "bert" ? 2 : 1, d});
  add("embeddings.LayerNorm.weight", {d});
  add("embeddings.LayerNorm.bias", {d});
  const std::vector<std::string> bert = {
      "attention.self.query",       "attention.self.key", "attention.self.value", "attention.output.dense",
      "attention.output.LayerNorm", "intermediate.dense", "output.dense",         "output.LayerNorm"};
  const std::vector<std::string> other = {"attention.q_lin", "attention.k_lin", "attention.v_lin", "attention.out_lin",
                                          "sa_layer_norm",   "ffn.lin1",        "ffn.lin2",        "output_layer_norm"};
  for (std::int64_t layer = 0; layer < kFamilyLayers; ++layer) {
    for (std::size_t m = 0; m < bert.size(); ++m) {
      const std::string name =
          (distil ? "transformer.layer." : "encoder.layer.") + std::to_string(layer) + "." + (distil ? other : bert)[m];
      const std::int64_t out = m == 5 ? f : d, in = m == 6 ? f : d;
      const bool norm = m == 4 || m == 7;
      add(name + ".weight", norm ? std::vector<std::int64_t>{d} : std::vector<std::int64_t>{out, in});
      add(name + ".bias", {norm ? d : out});
    }
  }
  return tensors;
}

inline void write_family_directory(const std::string& family, const std::filesystem::path& dir) {
  Json config = {{"model_type", family},
                 {"max_position_embeddings", kFamilyPlaces + padding_rows(family)},
                 {"vocab_size", kFamilyWords}};
  if (family == "modernbert") {
    config.update(Json{{"num_hidden_layers", kModernLayers},
                       {"hidden_size", kFamilyWidth},
                       {"intermediate_size", kFamilyInner},
                       {"num_attention_heads", 2},
                       {"local_attention", kModernWindow},
                       {"norm_eps", 1e-5}});
  } else if (family == "distilbert") {
    config.update(
        Json{{"n_layers", kFamilyLayers}, {"dim", kFamilyWidth}, {"hidden_dim", kFamilyInner}, {"n_heads", 2}});
  } else {
    config.update(Json{{"num_hidden_layers", kFamilyLayers},
                       {"hidden_size", kFamilyWidth},
                       {"intermediate_size", kFamilyInner},
                       {"num_attention_heads", 2},
                       {"layer_norm_eps", family == "bert" ? 1e-12 : 1e-5}});
  }
  write_json_atomic(dir / "config.json", config).value();
  const auto tensors = family_tensors(family);
  std::vector<SafeTensor> out;
  for (const FamilyTensor& t : tensors) out.push_back(safe_tensor<float>(t.name, "F32", t.shape, t.values));
  write_safetensors(dir / "model.safetensors", out).value();
}

/// As `tailor` imports the directory: one row of token types also where the family has none, no rows of padding.
inline void write_family_gguf(const std::string& family, const std::filesystem::path& file) {
  const std::unique_ptr<gguf_context, decltype(&gguf_free)> g(gguf_init_empty(), gguf_free);
  const auto number = [&](const char* key, std::int64_t v) {
    gguf_set_val_u32(g.get(), key, static_cast<std::uint32_t>(v));
  };
  const bool modern = family == "modernbert";
  const std::string arch = modern ? "modern-bert" : "bert";
  const auto key = [&](const char* name) { return arch + "." + name; };
  gguf_set_val_str(g.get(), "general.architecture", arch.c_str());
  gguf_set_val_str(g.get(), "tailor.source_model_type", family.c_str());
  number(key("block_count").c_str(), modern ? kModernLayers : kFamilyLayers);
  number(key("embedding_length").c_str(), kFamilyWidth);
  number(key("feed_forward_length").c_str(), kFamilyInner);
  number(key("attention.head_count").c_str(), 2);
  number(key("context_length").c_str(), kFamilyPlaces);
  gguf_set_val_f32(g.get(), key("attention.layer_norm_epsilon").c_str(),
                   family == "roberta" || modern ? 1e-5f : 1e-12f);
  if (modern) {
    number("modern-bert.attention.sliding_window", kModernWindow);
    number("modern-bert.attention.sliding_window_pattern", 3);
    gguf_set_val_f32(g.get(), "modern-bert.rope.freq_base", 160'000);
    gguf_set_val_f32(g.get(), "modern-bert.rope.freq_base_swa", 10'000);
  }
  if (family == "roberta") number("tokenizer.ggml.padding_token_id", 1);
  const std::unique_ptr<ggml_context, decltype(&ggml_free)> c(
      ggml_init({.mem_size = std::size_t{1} << 20, .mem_buffer = nullptr, .no_alloc = false}), ggml_free);
  auto tensors = family_tensors(family);
  if (family == "distilbert") {
    tensors.push_back({"embeddings.token_type_embeddings.weight", {1, kFamilyWidth}, std::vector<float>(kFamilyWidth)});
  }
  for (FamilyTensor& t : tensors) {
    if (t.name == "embeddings.position_embeddings.weight") {
      t.shape[0] -= padding_rows(family);
      t.values.erase(t.values.begin(), t.values.begin() + padding_rows(family) * kFamilyWidth);
    }
    ggml_tensor* to = t.shape.size() > 1 ? ggml_new_tensor_2d(c.get(), GGML_TYPE_F32, t.shape[1], t.shape[0])
                                         : ggml_new_tensor_1d(c.get(), GGML_TYPE_F32, t.shape[0]);
    ggml_set_name(to, gguf_name_of_encoder(t.name, family).value().c_str());
    std::copy(t.values.begin(), t.values.end(), static_cast<float*>(to->data));
    gguf_add_tensor(g.get(), to);
  }
  gguf_write_to_file(g.get(), file.c_str(), false);
}

}  // namespace tailor::tune::testing
