#pragma once
/// Models of this module's tests.

#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

#include "core/result.h"
#include "core/rng.h"
#include "core/safetensors.h"
#include "core/soft_prompt_file.h"
#include "model/gguf_file.h"
#include "model/gguf_writer.h"
#include "model/import.h"
#include "model/test_support.h"

namespace tailor::testing {

inline std::filesystem::path test_cache() {
  const std::filesystem::path dir = from_environment("TAILOR_BUILD_DIR") / "test-models";
  std::filesystem::create_directories(dir);
  return dir;
}

/// SmolLM2 with f32 weights, made once a build directory.
inline std::filesystem::path smollm_f32() {
  const std::filesystem::path file = test_cache() / "smollm2-135m-instruct-f32.gguf";
  if (!std::filesystem::exists(file)) dequantize_to_f32(smollm_file(), file).value();
  return file;
}

inline std::filesystem::path minilm_gguf(ImportType type) {
  return import_cached(minilm_dir(), test_cache(), {.type = type}).value();
}

/// Virtual tokens for tiny_llama().
inline void write_soft_prompt(const std::filesystem::path& file, std::size_t tokens = 7) {
  std::vector<float> vectors(tokens * 64);
  Rng rng(3);
  for (float& v : vectors) v = static_cast<float>(rng.normal());
  const SafeTensor tensor{.name = kSoftPromptEmbeddings,
                          .type = "F32",
                          .shape = {static_cast<std::int64_t>(tokens), 64},
                          .bytes = {reinterpret_cast<const char*>(vectors.data()), vectors.size() * sizeof(float)}};
  write_safetensors(file, std::span(&tensor, 1), {{"format", kSoftPromptFormat}, {"version", "1"}}).value();
}

/// A llama of two layers of width 64 with random weights and SmolLM2's vocabulary: its next tokens are as sharp as a
/// trained model's, and hundreds of prompts cost a second.
inline std::filesystem::path tiny_llama() {
  const std::filesystem::path out = test_cache() / "tiny-llama.gguf";
  if (std::filesystem::exists(out)) return out;
  const GgufFile base = GgufFile::open(smollm_file()).value();
  GgufWriter writer;
  for (const auto& [key, value] : base.values()) writer.set(key, value);
  const std::uint32_t width = 64, hidden = 96, heads = 4, kv_heads = 2, layers = 2;
  const std::uint64_t vocabulary = base.tensor("token_embd.weight")->shape[1];
  writer.set("llama.block_count", GgufValue::u32(layers));
  writer.set("llama.embedding_length", GgufValue::u32(width));
  writer.set("llama.feed_forward_length", GgufValue::u32(hidden));
  writer.set("llama.attention.head_count", GgufValue::u32(heads));
  writer.set("llama.attention.head_count_kv", GgufValue::u32(kv_heads));
  writer.set("llama.rope.dimension_count", GgufValue::u32(width / heads));
  writer.set("llama.context_length", GgufValue::u32(2048));
  writer.set("general.file_type", GgufValue::u32(0));
  std::uint64_t stream = 0;
  const auto add = [&](const std::string& name, std::vector<std::uint64_t> shape, double mean, double deviation) {
    std::uint64_t count = 1;
    for (const std::uint64_t n : shape) count *= n;
    const std::uint64_t own = ++stream;
    writer.add(name, TensorType::kF32, std::move(shape), [=]() -> Result<std::vector<float>> {
      Rng rng(11, own);
      std::vector<float> values(count);
      for (float& v : values) v = static_cast<float>(mean + deviation * rng.normal());
      return values;
    });
  };
  add("token_embd.weight", {width, vocabulary}, 0, 1.0);
  add("output_norm.weight", {width}, 0.5, 0.05);
  for (std::uint32_t i = 0; i < layers; ++i) {
    const std::string block = "blk." + std::to_string(i) + ".";
    add(block + "attn_norm.weight", {width}, 1, 0.1);
    add(block + "attn_q.weight", {width, width}, 0, 0.15);
    add(block + "attn_k.weight", {width, width / 2}, 0, 0.15);
    add(block + "attn_v.weight", {width, width / 2}, 0, 0.2);
    add(block + "attn_output.weight", {width, width}, 0, 0.2);
    add(block + "ffn_norm.weight", {width}, 1, 0.1);
    add(block + "ffn_gate.weight", {width, hidden}, 0, 0.2);
    add(block + "ffn_up.weight", {width, hidden}, 0, 0.2);
    add(block + "ffn_down.weight", {hidden, width}, 0, 0.2);
  }
  writer.write(out).value();
  return out;
}

/// An adapter of rank 4 for two matrices of tiny_llama(), with numbers that change its answers.
inline void write_tiny_adapter(const std::filesystem::path& to, std::uint64_t width = 64, const std::string& extra = "",
                               double size = 0.1, std::uint64_t seed = 5) {
  GgufWriter writer;
  writer.set("general.architecture", GgufValue::string("llama"));
  writer.set("general.type", GgufValue::string("adapter"));
  writer.set("adapter.type", GgufValue::string("lora"));
  writer.set("adapter.lora.alpha", GgufValue::f32(8));
  const auto add = [&](const std::string& name, std::uint64_t columns, std::uint64_t rows, std::uint64_t stream) {
    writer.add(name, TensorType::kF32, {columns, rows}, [=]() -> Result<std::vector<float>> {
      Rng rng(seed, stream);
      std::vector<float> values(columns * rows);
      for (float& v : values) v = static_cast<float>(size * rng.normal());
      return values;
    });
  };
  add("blk.0.attn_q.weight.lora_a", width, 4, 1);
  add("blk.0.attn_q.weight.lora_b", 4, 64, 2);
  add("blk.1.ffn_down.weight.lora_a", 96, 4, 3);
  add("blk.1.ffn_down.weight.lora_b", 4, 64, 4);
  if (!extra.empty()) add(extra, 64, 4, 5);
  writer.write(to).value();
}

}  // namespace tailor::testing
