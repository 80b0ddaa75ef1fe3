#include "model/rounded_model.h"

#include <fmt/format.h>

#include <bit>
#include <cstdint>
#include <map>
#include <string>
#include <system_error>
#include <vector>

#include "core/files.h"
#include "model/changed_model.h"
#include "model/file_hash.h"
#include "model/gguf_file.h"

namespace tailor {

namespace fs = std::filesystem;

float rounded_to_bf16(float x) {
  const auto bits = std::bit_cast<std::uint32_t>(x);
  if (x != x) return x;
  return std::bit_cast<float>((bits + 0x7FFFU + ((bits >> 16) & 1U)) & 0xFFFF0000U);
}

Result<fs::path> rounded_to_bf16_cached(const fs::path& in, const fs::path& cache_dir) {
  TAILOR_TRY(const std::string hash, cached_sha256(in));
  const fs::path out = cache_dir / fmt::format("{}-{}-bf16.gguf", in.stem().string(), hash.substr(0, 16));
  std::error_code ec;
  if (fs::exists(out, ec)) return out;
  TAILOR_TRY(const GgufFile model, GgufFile::open(in));
  std::map<std::string, TensorChange, std::less<>> changes;
  for (const GgufTensor& tensor : model.tensors()) {
    if (tensor.shape.size() != 2 || tensor.name == "position_embd.weight") continue;
    changes[tensor.name].apply = [](std::vector<float>& values) -> Status {
      for (float& value : values) value = rounded_to_bf16(value);
      return {};
    };
  }
  TAILOR_CHECK(make_directories(cache_dir));
  TAILOR_TRY(const bool changed, write_changed_model(model, changes, out));
  return changed ? out : in;
}

}  // namespace tailor
