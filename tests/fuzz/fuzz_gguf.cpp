#include <tuple>

#include "core/files.h"
#include "fuzz.h"
#include "model/gguf_check.h"
#include "model/gguf_file.h"
#include "model/gguf_writer.h"

namespace tailor::fuzz {

std::vector<std::string> seeds() {
  GgufWriter writer;
  writer.set("general.architecture", GgufValue::string("llama"));
  writer.set("llama.block_count", GgufValue::u32(1));
  writer.set("llama.rope.freq_base", GgufValue::f32(10000));
  writer.set("llama.attention.causal", GgufValue::boolean(true));
  writer.set("tokenizer.ggml.tokens", GgufValue::strings(std::vector<std::string>{"<s>", "a", "b", "ab"}));
  writer.set("tokenizer.ggml.scores", GgufValue::f32s(std::vector<float>{0, 1, 2, 3}));
  writer.set("tokenizer.ggml.token_type", GgufValue::i32s(std::vector<std::int32_t>{3, 1, 1, 1}));
  const auto values = [](std::size_t n) {
    return [n]() -> Result<std::vector<float>> { return std::vector<float>(n, 0.5f); };
  };
  writer.add("token_embd.weight", TensorType::kQ8_0, {32, 4}, values(128));
  writer.add("output_norm.weight", TensorType::kF32, {32}, values(32));
  writer.add("blk.0.attn_q.weight", TensorType::kF16, {32, 2}, values(64));
  TemporaryDirectory dir;
  writer.write(dir.path() / "seed.gguf").value();
  return {read_file(dir.path() / "seed.gguf").value()};
}

}  // namespace tailor::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static tailor::fuzz::InputFile input;
  const auto file = tailor::GgufFile::open(input.put({reinterpret_cast<const char*>(data), size}));
  if (!file) return 0;
  std::ignore = tailor::check_llama_metadata(*file);
  for (const auto& tensor : file->tensors()) {
    const auto values = tailor::to_f32(tensor);
    if (values && values->size() != tensor.elements) __builtin_trap();
  }
  return 0;
}
