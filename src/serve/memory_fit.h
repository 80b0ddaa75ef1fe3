#pragma once
/// Whether a model fits into memory, asked before it is loaded: the system would end the server, or swap.

#include <cstdint>
#include <filesystem>
#include <vector>

#include "core/result.h"

namespace tailor {

/// Weights as the file has them, keys and values as asked for (`cache_bytes`; 0: at least those of 2,048 tokens, or of
/// what the model was made for), and a little for computing. Of `cache_bytes` other models hold `held_bytes` by now and
/// may take the rest too. The bytes that are left for keys and values. kOutOfMemory says what would fit. A file that
/// cannot be read is no error here: loading tells more about it.
Result<std::uint64_t> check_memory(const std::filesystem::path& gguf, std::uint64_t cache_bytes,
                                   std::uint64_t available_bytes, std::uint64_t held_bytes = 0);

/// The same for models that are loaded together and keep no cache between requests, such as those of a package.
Status check_memory(std::vector<std::filesystem::path> ggufs, std::uint64_t available_bytes);

}  // namespace tailor
