#pragma once
/// A model for tests that has the chat template they need.

#include <filesystem>
#include <string>

#include "infer/test_models.h"
#include "model/gguf_writer.h"

namespace tailor::test {

/// tiny_llama() with that template, made once a build directory under this name.
inline std::filesystem::path tiny_llama_with_template(const std::string& name, const char* chat_template) {
  const std::filesystem::path out = testing::test_cache() / (name + ".gguf");
  if (std::filesystem::exists(out)) return out;
  const GgufFile base = GgufFile::open(testing::tiny_llama()).value();
  GgufWriter writer;
  for (const auto& [key, value] : base.values()) writer.set(key, value);
  writer.set("tokenizer.chat_template", GgufValue::string(chat_template));
  for (const GgufTensor& tensor : base.tensors()) {
    writer.add(tensor.name, TensorType::kF32, tensor.shape, [&tensor] { return to_f32(tensor); });
  }
  writer.write(out).value();
  return out;
}

}  // namespace tailor::test
