#pragma once
/// States of a decoder's frozen lower layers for packed batches of the token file's rows (state_store.h). A tree's
/// segment is read from any row that passes through it: its tokens' states depend on their path alone.

#include <memory>
#include <optional>

#include "tune/decoder.h"
#include "tune/parameters.h"
#include "tune/state_store.h"
#include "tune/trainable_model.h"

namespace tailor::tune::decoder {

class FrozenStates {
 public:
  /// Absent where every layer is trained, no row is visited twice, or the disk has no room. Borrows all but `job`.
  static std::optional<FrozenStates> make(Decoder& decoder, const DecoderWeights& weights,
                                          const ParameterSet& parameters, const Job& job, const TokenFile& file);
  /// Where a pass over these rows, whose tree this is, begins. Computes the layers for rows it has not seen.
  Decoder::Start start(const std::shared_ptr<const PackedTree>& tree, RowSpan rows);
  std::int64_t layer() const { return layer_; }

 private:
  FrozenStates(Decoder& decoder, const at::Device& device, std::int64_t layer, std::unique_ptr<StateStore> store)
      : decoder_(&decoder), device_(device), layer_(layer), store_(std::move(store)) {}

  Decoder* decoder_;
  at::Device device_;
  std::int64_t layer_;
  std::unique_ptr<StateStore> store_;
};

}  // namespace tailor::tune::decoder
