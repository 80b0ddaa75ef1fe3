#include "tune/decoder_states.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <cstring>
#include <string_view>

#include "tune/job.h"
#include "tune/tensor_filters.h"

namespace tailor::tune::decoder {

std::optional<FrozenStates> FrozenStates::make(Decoder& decoder, const DecoderWeights& weights,
                                               const ParameterSet& parameters, const Job& job, const TokenFile& file) {
  const DecoderConfig& c = weights.config();
  const std::int64_t layer = std::min(first_trained_layer(parameters, c.layers), c.layers - 1);
  if (layer <= 0 || !visits_rows_again(job, file)) return std::nullopt;
  // Rows with labels are validated by the tree of all answers, which is not kept.
  std::vector<TokenPart> parts{TokenPart::kTrain};
  if (job.task == Task::kCausalLm) parts.push_back(TokenPart::kValidation);
  auto store = StateStore::make(job.out, file, parts, c.hidden);
  if (store == nullptr) return std::nullopt;
  return FrozenStates(decoder, weights.device(), layer, std::move(store));
}

Decoder::Start FrozenStates::start(const std::shared_ptr<const PackedTree>& tree, RowSpan rows) {
  const std::int64_t width = store_->width();
  const auto held = [&](std::int32_t row) { return store_->holds(rows[static_cast<std::size_t>(row)]); };
  if (std::all_of(tree->segment_rows.begin(), tree->segment_rows.end(), held)) {
    Decoder::Start start{layer_, at::empty({tree->size(), width}, at::kFloat)};
    float* states = start.states.data_ptr<float>();
    for (std::size_t s = 0; s < tree->segments.size(); ++s) {
      const TreeSegment& segment = tree->segments[s];
      store_->get(rows[static_cast<std::size_t>(tree->segment_rows[s])], segment.offset, segment.length,
                  states + segment.begin * width);
    }
    start.states = start.states.to(device_);
    return start;
  }
  Decoder::Start start = decoder_->start_at(tree, layer_);
  const at::Tensor on_cpu = start.states.cpu();
  const float* states = on_cpu.data_ptr<float>();
  std::vector<float> path;
  for (std::size_t r = 0; r < rows.size(); ++r) {
    if (!store_->wants(rows[r]) || tree->row_ends[r] < 0) continue;
    const TreeSegment& last = tree->segments[static_cast<std::size_t>(tree->row_ends[r])];
    path.resize(static_cast<std::size_t>((last.offset + last.length) * width));
    for (std::int32_t s = tree->row_ends[r]; s >= 0; s = tree->segments[static_cast<std::size_t>(s)].parent) {
      const TreeSegment& segment = tree->segments[static_cast<std::size_t>(s)];
      std::memcpy(path.data() + segment.offset * width, states + segment.begin * width,
                  static_cast<std::size_t>(segment.length * width) * sizeof(float));
    }
    store_->put(rows[r], path);
  }
  return start;
}

}  // namespace tailor::tune::decoder
