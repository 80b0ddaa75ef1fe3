#include "core/files.h"
#include "core/safetensors.h"
#include "core/token_file.h"
#include "fuzz.h"

namespace tailor::fuzz {

std::vector<std::string> seeds() {
  TemporaryDirectory dir;
  const std::vector<float> values{1, 2, 3, 4, 5, 6};
  const std::vector<SafeTensor> tensors{safe_tensor<float>("weight", "F32", {2, 3}, values),
                                        safe_tensor<float>("bias", "F32", {3}, std::span(values).first(3))};
  write_safetensors(dir.path() / "a", tensors, {{"format", "pt"}}).value();
  TokenFile tokens;
  tokens.n_labels = 2;
  tokens.vocab_size = 100;
  const std::vector<std::int32_t> row{1, 5, 9};
  tokens.add_row(row, 0, TokenPart::kTrain, 0);
  tokens.add_row(row, 1, TokenPart::kValidation, 1);
  for (int i = 0; i < 2; ++i) tokens.add_label(row);
  write_token_file(dir.path() / "b", tokens).value();
  return {read_file(dir.path() / "a").value(), read_file(dir.path() / "b").value()};
}

}  // namespace tailor::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static tailor::fuzz::InputFile input;
  const auto& path = input.put({reinterpret_cast<const char*>(data), size});
  if (const auto file = tailor::SafetensorsFile::open(path)) {
    std::size_t sum = 0;
    for (const auto& tensor : file->tensors()) {
      for (const char byte : tensor.bytes) sum += static_cast<unsigned char>(byte);
    }
    if (sum > 255 * size) __builtin_trap();  // every byte belongs to one tensor at most
  }
  if (const auto tokens = tailor::read_token_file(path)) {
    for (std::size_t i = 0; i < tokens->rows(); ++i) {
      for (const auto id : tokens->row(i)) {
        if (id < 0 || id >= tokens->vocab_size) __builtin_trap();
      }
    }
  }
  return 0;
}
