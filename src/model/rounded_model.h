#pragma once
/// A decoder whose matrices are rounded to bf16, as `tailor tune --dtype bf16` keeps them while it trains: what is
/// served has to be what was trained on.

#include <filesystem>

#include "core/result.h"

namespace tailor {

/// The nearest number with 8 significant bits, ties to even.
float rounded_to_bf16(float x);

/// "<cache_dir>/<name>-<content hash>-bf16.gguf", made only where absent: `in`'s model with every matrix but the
/// learned positions rounded. Tensors keep their types, quantised ones become f16. f16 holds such numbers exactly down
/// to 2^-14, below with an error of at most 2^-25, and rounding what it holds again changes nothing. A model that is so
/// already is `in` itself.
Result<std::filesystem::path> rounded_to_bf16_cached(const std::filesystem::path& in,
                                                     const std::filesystem::path& cache_dir);

}  // namespace tailor
