#include "model/changed_model.h"

#include "model/gguf_writer.h"

namespace tailor {
namespace {

bool is_whole(TensorType type) {
  return type == TensorType::kF32 || type == TensorType::kF16 || type == TensorType::kBF16;
}

/// `changed`: whether a value differs in the type that it is written in.
Result<std::vector<float>> applied(const GgufTensor& tensor, const TensorChange& change, TensorType as, bool& changed) {
  TAILOR_TRY(std::vector<float> values, to_f32(tensor));
  const std::vector<float> before = changed ? std::vector<float>() : values;
  TAILOR_CHECK(change.apply(values));
  if (!changed) {
    TAILOR_TRY(const std::string old_bytes, encode_tensor(as, before, tensor.shape[0]));
    TAILOR_TRY(const std::string new_bytes, encode_tensor(as, values, tensor.shape[0]));
    changed = old_bytes != new_bytes;
  }
  return values;
}

}  // namespace

Result<bool> write_changed_model(const GgufFile& model, const std::map<std::string, TensorChange, std::less<>>& changes,
                                 const std::filesystem::path& out, TensorType least) {
  bool changed = false;
  GgufWriter writer;
  for (const auto& [key, value] : model.values()) writer.set(key, value);
  for (const GgufTensor& tensor : model.tensors()) {
    const auto found = changes.find(tensor.name);
    if (found == changes.end()) {
      writer.add_raw(tensor.name, tensor.type, tensor.shape,
                     [&tensor]() -> Result<std::string_view> { return tensor.bytes; });
      continue;
    }
    const TensorType as = is_whole(tensor.type) && least != TensorType::kF32 ? tensor.type : least;
    const TensorChange& change = found->second;
    writer.add(tensor.name, as, tensor.shape,
               [&tensor, &changed, &change, as] { return applied(tensor, change, as, changed); });
  }
  TAILOR_CHECK(writer.write(out));
  if (!changed) {
    std::error_code ignored;
    std::filesystem::remove(out, ignored);
  }
  return changed;
}

}  // namespace tailor
