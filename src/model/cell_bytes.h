#pragma once
/// What a token's keys and values take.

#include <cstdint>

#include "model/gguf_file.h"

namespace tailor {

/// Bytes of keys and values of one token in all layers, as llama.cpp keeps them, at `number_bytes` a number (2: f16).
/// At least 1, also for a file that says nothing of it.
std::uint64_t cell_bytes(const GgufFile& model, std::uint64_t number_bytes = 2);

}  // namespace tailor
