#include "fit/tuned_model.h"

#include <fmt/format.h>

#include <cstring>

#include "core/safetensors.h"
#include "model/gguf_writer.h"

namespace tailor {

Status write_tuned_gguf(const std::filesystem::path& base_file, const std::filesystem::path& weights_file,
                        TensorType matrices, const std::filesystem::path& to) {
  TAILOR_TRY(const SafetensorsFile weights, SafetensorsFile::open(weights_file));
  TAILOR_TRY(const GgufFile base, GgufFile::open(base_file));
  GgufWriter writer;
  for (const auto& [key, value] : base.values()) writer.set(key, value);
  writer.set("general.file_type", GgufValue::u32(matrices == TensorType::kF16 ? 1 : 0));
  for (const auto& tensor : base.tensors()) {
    const SafeTensor* trained = weights.find(tensor.name);
    const bool matrix = tensor.shape.size() == 2 && tensor.shape[1] > 2 && tensor.name != "position_embd.weight";
    const auto values = [&tensor, trained, &to]() -> Result<std::vector<float>> {
      if (trained == nullptr) return to_f32(tensor);
      if (trained->type != "F32" || static_cast<std::uint64_t>(trained->elements()) != tensor.elements) {
        return Error{
            ErrorCode::kCorruptData,
            fmt::format("{}: the trained {} has another shape than the base model's", to.string(), tensor.name), ""};
      }
      std::vector<float> v(static_cast<std::size_t>(tensor.elements));
      std::memcpy(v.data(), trained->bytes.data(), trained->bytes.size());
      return v;
    };
    writer.add(tensor.name, matrix ? matrices : TensorType::kF32, tensor.shape, values);
  }
  return writer.write(to);
}

Result<Predictions> read_tune_predictions(const PreparedData& data, const std::filesystem::path& file) {
  TAILOR_TRY(const SafetensorsFile stored, SafetensorsFile::open(file));
  TAILOR_TRY(const SafeTensor p, stored.get("probabilities", "F32", 2));
  TAILOR_TRY(const SafeTensor ids, stored.get("row_ids", "I64", 1));
  Matrix probabilities(static_cast<std::size_t>(p.shape[0]), static_cast<std::size_t>(p.shape[1]));
  std::memcpy(probabilities.data.data(), p.bytes.data(), p.bytes.size());
  std::vector<std::int64_t> rows(static_cast<std::size_t>(ids.shape[0]));
  std::memcpy(rows.data(), ids.bytes.data(), ids.bytes.size());
  const RowSet set{{rows.begin(), rows.end()}};
  return make_predictions(set.ids, data.labels_of(set), std::move(probabilities));
}

}  // namespace tailor
