#pragma once
/// A SentencePiece vocabulary of all single bytes and a few longer tokens, for tests and fuzz targets of constraints:
/// masks over it are made quickly.

#include <cstdint>
#include <cstdio>
#include <string>
#include <utility>
#include <vector>

#include "core/files.h"
#include "model/gguf_writer.h"
#include "model/tokenizer.h"

namespace tailor::testing {

inline constexpr std::int32_t kByteVocabularyEnd = 256;  // bytes before it, longer tokens behind it

/// The 256 bytes, then `more` with their types (llama_token_type), as "tokenizer.ggml.*"; returns how many.
inline std::uint64_t set_byte_vocabulary(GgufWriter& writer,
                                         const std::vector<std::pair<std::string, std::int32_t>>& more) {
  std::vector<std::string> tokens;
  std::vector<std::int32_t> types(256, 6);
  for (unsigned byte = 0; byte < 256; ++byte) {
    char name[8];
    std::snprintf(name, sizeof name, "<0x%02X>", byte);
    tokens.emplace_back(name);
  }
  for (const auto& [text, type] : more) {
    tokens.push_back(text);
    types.push_back(type);
  }
  writer.set("tokenizer.ggml.model", GgufValue::string("llama"));
  writer.set("tokenizer.ggml.tokens", GgufValue::strings(tokens));
  writer.set("tokenizer.ggml.scores", GgufValue::f32s(std::vector<float>(tokens.size(), 0.0F)));
  writer.set("tokenizer.ggml.token_type", GgufValue::i32s(types));
  return tokens.size();
}

inline Tokenizer byte_vocabulary() {
  std::vector<std::pair<std::string, std::int32_t>> more{{"</s>", 3}, {"<unk>", 2}, {"<unused>", 5}};
  for (const char* text :
       {"\xE2\x96\x81",
        "\xE2\x96\x81"
        "a",
        "\":", "\",", "\"}", "},", "{\"", "[\"", "true", "false", "null", "ab", "abc", "00", "12", "\\u", "\xC3\xA9"}) {
    more.emplace_back(text, 1);
  }
  GgufWriter writer;
  writer.set("general.architecture", GgufValue::string("llama"));
  for (const char* size :
       {"block_count", "context_length", "embedding_length", "feed_forward_length", "attention.head_count"}) {
    writer.set(std::string("llama.") + size, GgufValue::u32(8));
  }
  writer.set("llama.attention.layer_norm_rms_epsilon", GgufValue::f32(1e-5F));
  set_byte_vocabulary(writer, more);
  writer.set("tokenizer.ggml.eos_token_id", GgufValue::u32(kByteVocabularyEnd));
  writer.set("tokenizer.ggml.unknown_token_id", GgufValue::u32(kByteVocabularyEnd + 1));
  const TemporaryDirectory directory;
  const auto file = directory.path() / "vocabulary.gguf";
  writer.write(file).value();
  return Tokenizer::load(file).value();
}

}  // namespace tailor::testing
