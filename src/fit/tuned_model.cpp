#include "fit/tuned_model.h"

#include <cstring>

#include "core/safetensors.h"

namespace tailor {

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
