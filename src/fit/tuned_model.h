#pragma once
/// What tuned encoders and decoders have in common on their way from tailor-tune into a package.

#include <cstdint>
#include <filesystem>
#include <utility>

#include "core/token_file.h"
#include "fit/package.h"
#include "fit/predictions.h"
#include "fit/prepared_data.h"
#include "fit/ready_model.h"
#include "fit/tune_process.h"
#include "model/gguf_file.h"

namespace tailor {

inline constexpr const char* kTrainedWeights = "weights.safetensors";  // of a run: whole tensors that changed
inline constexpr const char* kTunedFile = "tuned.gguf";                // of a package: tuned weights
inline constexpr const char* kAdapterDirectory = "adapter";  // of a package: in PEFT's and in llama.cpp's layout

/// Rows of the data by the part of the token file they go to.
struct TokenParts {
  RowSet train, validation, test;

  std::size_t size() const { return train.size() + validation.size() + test.size(); }
  /// The i-th row of all, in this order, by its id, and its part.
  std::pair<std::uint32_t, TokenPart> at(std::size_t i) const {
    if (i < train.size()) return {train.ids[i], TokenPart::kTrain};
    i -= train.size();
    if (i < validation.size()) return {validation.ids[i], TokenPart::kValidation};
    return {test.ids[i - validation.size()], TokenPart::kTest};
  }
};

struct TunedPackage {
  BaseModel base;                   // as the manifest names it
  std::uint64_t trained_bytes = 0;  // of what was trained, without the base
};

/// The model of `base` (GGUF) with the tensors of `weights` (safetensors, by GGUF names) in place, as llama.cpp runs
/// it; matrices as `matrices`, all else f32. Atomic at `to`.
Status write_tuned_gguf(const std::filesystem::path& base, const std::filesystem::path& weights, TensorType matrices,
                        const std::filesystem::path& to);

/// What tailor-tune answered ("validation_predictions.safetensors", "test_predictions.safetensors").
Result<Predictions> read_tune_predictions(const PreparedData& data, const std::filesystem::path& file);

}  // namespace tailor
