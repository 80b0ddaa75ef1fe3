#include "tune/hard_negatives.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "core/result.h"
#include "core/safetensors.h"
#include "tune/data_order.h"
#include "tune/head.h"

namespace tailor::tune {
namespace {

constexpr std::int64_t kMostCosines = std::int64_t{1} << 23;  // held at once
constexpr const char* kFormat = "tailor-hard-negatives";

}  // namespace

HardNegatives::HardNegatives(const TokenFile& file, std::filesystem::path directory)
    : file_(file), directory_(std::move(directory)), rows_(rows_of(file, TokenPart::kTrain)), place_(file.rows(), -1) {
  for (std::size_t i = 0; i < rows_.size(); ++i)
    place_[static_cast<std::size_t>(rows_[i])] = static_cast<std::int64_t>(i);
}

std::filesystem::path HardNegatives::file_of(std::int64_t epoch) const {
  return directory_ / fmt::format("hard-negatives-{}.safetensors", epoch);
}

void HardNegatives::mine(const at::Tensor& vectors, std::int64_t epoch) {
  const auto n = static_cast<std::int64_t>(rows_.size());
  const std::int64_t most = std::min(kMost, n);
  near_.assign(static_cast<std::size_t>(n * kMost), -1);
  at::Tensor labels = at::empty({n}, at::kInt);
  const auto names = labels_of(file_, rows_);
  std::copy(names.begin(), names.end(), labels.data_ptr<std::int32_t>());
  const std::int64_t block = std::max<std::int64_t>(1, kMostCosines / n);
  for (std::int64_t first = 0; first < n; first += block) {
    const std::int64_t count = std::min(block, n - first);
    at::Tensor cosines = at::mm(vectors.narrow(0, first, count), vectors.t());
    const at::Tensor same = labels.narrow(0, first, count).unsqueeze(1).eq(labels.unsqueeze(0));
    cosines.masked_fill_(same, -2);  // below every cosine
    const auto [values, indices] = at::topk(cosines, most, 1);
    const at::Tensor kept = values.contiguous(), places = indices.contiguous();
    for (std::int64_t i = 0; i < count; ++i) {
      for (std::int64_t k = 0; k < most; ++k) {
        if (kept.data_ptr<float>()[i * most + k] < -1.5f) break;
        const std::int64_t place = places.data_ptr<std::int64_t>()[i * most + k];
        near_[static_cast<std::size_t>((first + i) * kMost + k)] = rows_[static_cast<std::size_t>(place)];
      }
    }
  }
  epoch_ = epoch;
  const SafeTensor tensor = safe_tensor<std::int64_t>("near", "I64", {n, kMost}, near_);
  if (const Status written = write_safetensors(file_of(epoch), {&tensor, 1}, {{"format", kFormat}, {"version", "1"}});
      !written)
    throw Exception(written.error());
}

void HardNegatives::read(std::int64_t epoch) {
  const auto path = file_of(epoch);
  const auto load = [&]() -> Status {
    TAILOR_TRY(const SafetensorsFile stored, SafetensorsFile::open(path));
    TAILOR_TRY(const SafeTensor near, stored.get("near", "I64", 2));
    std::vector<std::int64_t> values(near.bytes.size() / sizeof(std::int64_t));
    std::memcpy(values.data(), near.bytes.data(), near.bytes.size());
    const auto known = [&](std::int64_t row) {
      return row == -1 ||
             (row >= 0 && row < static_cast<std::int64_t>(place_.size()) && place_[static_cast<std::size_t>(row)] >= 0);
    };
    if (near.shape[0] != static_cast<std::int64_t>(rows_.size()) || near.shape[1] != kMost ||
        !std::all_of(values.begin(), values.end(), known)) {
      return Error{ErrorCode::kCorruptData, path.string() + ": its rows are not those of this job",
                   "remove the output directory and start again"};
    }
    near_ = std::move(values);
    epoch_ = epoch;
    return {};
  };
  if (const Status loaded = load(); !loaded) throw Exception(loaded.error());
}

RowSpan HardNegatives::of(std::int64_t row) const {
  const std::int64_t first = place_[static_cast<std::size_t>(row)] * kMost;
  const RowSpan all = RowSpan(near_).subspan(static_cast<std::size_t>(first), kMost);
  return all.first(static_cast<std::size_t>(std::find(all.begin(), all.end(), -1) - all.begin()));
}

}  // namespace tailor::tune
