#pragma once
/// A llama of one layer over bytes, for targets that need a model or its tokenizer: a token costs microseconds.

#include <filesystem>
#include <string>
#include <vector>

#include "core/rng.h"
#include "infer/test_byte_vocabulary.h"
#include "model/gguf_writer.h"

namespace tailor::fuzz {

inline constexpr std::uint64_t kSmallWidth = 32, kSmallHidden = 48;

/// Bytes, then <unk>, <s>, </s> and the control tokens of templates; returns how many.
inline std::uint64_t set_small_vocabulary(GgufWriter& writer) {
  writer.set("tokenizer.ggml.unknown_token_id", GgufValue::u32(256));
  writer.set("tokenizer.ggml.bos_token_id", GgufValue::u32(257));
  writer.set("tokenizer.ggml.eos_token_id", GgufValue::u32(258));
  return testing::set_byte_vocabulary(writer, {{"<unk>", 2},
                                               {"<s>", 3},
                                               {"</s>", 3},
                                               {"<|im_start|>", 3},
                                               {"<|im_end|>", 3},
                                               {"\xE2\x96\x81", 1},
                                               {"a", 1},
                                               {"b", 1},
                                               {"ab", 1}});
}

/// `tied`: the output is the words' vectors.
inline void write_small_model(const std::filesystem::path& to, bool tied) {
  GgufWriter writer;
  writer.set("general.architecture", GgufValue::string("llama"));
  const auto size = [&](const char* key, std::uint64_t value) {
    writer.set(std::string("llama.") + key, GgufValue::u32(static_cast<std::uint32_t>(value)));
  };
  size("block_count", 1);
  size("context_length", 256);
  size("embedding_length", kSmallWidth);
  size("feed_forward_length", kSmallHidden);
  size("attention.head_count", 2);
  size("attention.head_count_kv", 1);
  size("rope.dimension_count", kSmallWidth / 2);
  writer.set("llama.attention.layer_norm_rms_epsilon", GgufValue::f32(1e-5F));
  const std::uint64_t words = set_small_vocabulary(writer);
  std::uint64_t stream = 0;
  const auto add = [&](const std::string& name, std::vector<std::uint64_t> shape) {
    std::uint64_t count = 1;
    for (const std::uint64_t n : shape) count *= n;
    writer.add(name, TensorType::kF32, std::move(shape), [count, own = ++stream]() -> Result<std::vector<float>> {
      Rng rng(3, own);
      std::vector<float> values(count);
      for (float& v : values) v = static_cast<float>(0.3 * rng.normal());
      return values;
    });
  };
  add("token_embd.weight", {kSmallWidth, words});
  add("output_norm.weight", {kSmallWidth});
  if (!tied) add("output.weight", {kSmallWidth, words});
  const std::string block = "blk.0.";
  add(block + "attn_norm.weight", {kSmallWidth});
  add(block + "attn_q.weight", {kSmallWidth, kSmallWidth});
  add(block + "attn_k.weight", {kSmallWidth, kSmallWidth / 2});
  add(block + "attn_v.weight", {kSmallWidth, kSmallWidth / 2});
  add(block + "attn_output.weight", {kSmallWidth, kSmallWidth});
  add(block + "ffn_norm.weight", {kSmallWidth});
  add(block + "ffn_gate.weight", {kSmallWidth, kSmallHidden});
  add(block + "ffn_up.weight", {kSmallWidth, kSmallHidden});
  add(block + "ffn_down.weight", {kSmallHidden, kSmallWidth});
  writer.write(to).value();
}

}  // namespace tailor::fuzz
