#pragma once
/// A model's weights in another type, by llama.cpp's quantiser. Which type is fastest and still good on this machine is
/// measured elsewhere.

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string_view>

#include "core/result.h"

namespace tailor {

enum class QuantType : std::uint8_t { kF16, kQ8_0, kQ6K, kQ5KM, kQ4KM, kQ4_0 };
std::string_view name_of(QuantType type);  // "f16", "q8_0", "q6_k", "q5_k_m", "q4_k_m", "q4_0"
std::optional<QuantType> quant_type(std::string_view name);

/// Writes `in`'s model with its matrices as `type`; norms and biases stay f32, and llama.cpp keeps the token embeddings
/// of a q4_0 model a little finer, and matrices whose rows are no multiple of 256 in blocks of 32 instead of k-quants.
/// Weights that are quantised already are quantised again from what they hold (quality only goes down). Atomic at
/// `out`, which may be `in`. `threads` 0: all.
Status requantize(const std::filesystem::path& in, const std::filesystem::path& out, QuantType type, int threads = 0);

/// The same through a cache: "<cache_dir>/<name>-<content hash>-<type>.gguf", made only where absent.
Result<std::filesystem::path> requantize_cached(const std::filesystem::path& in, const std::filesystem::path& cache_dir,
                                                QuantType type, int threads = 0);

}  // namespace tailor
