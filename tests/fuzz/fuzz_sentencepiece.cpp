#include "fuzz.h"
#include "model/sentencepiece_model.h"

namespace tailor::fuzz {
namespace {

/// A field of bytes: (number << 3 | 2), length, content.
std::string field(int number, const std::string& content) {
  return std::string(1, static_cast<char>(number << 3 | 2)) + static_cast<char>(content.size()) + content;
}

}  // namespace

std::vector<std::string> seeds() {
  const std::string score(4, '\0');
  const std::string piece = field(1, "<s>") + '\x15' + score + std::string("\x18\x03", 2);
  const std::string trainer("\x18\x02\x98\x02\x01", 5);  // BPE, byte fallback
  const std::string normalizer("\x18\x01\x20\x00", 4);
  return {field(1, piece) + field(1, piece) + field(2, trainer) + field(3, normalizer)};
}

}  // namespace tailor::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static tailor::fuzz::InputFile input;
  const auto model = tailor::read_sentencepiece_model(input.put({reinterpret_cast<const char*>(data), size}));
  if (model && model->pieces.size() > size) __builtin_trap();
  return 0;
}
