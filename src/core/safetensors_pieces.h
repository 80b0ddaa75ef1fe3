#pragma once
/// safetensors files of tensors that are too large to be in memory, even one at a time.

#include "core/safetensors.h"

namespace tailor {

/// As write_safetensors() of streamed tensors, each asked again for its next bytes until it has all; no bytes before
/// that, or too many, are an error.
Status write_safetensors_in_pieces(const std::filesystem::path& file, std::span<const StreamedTensor> tensors,
                                   const std::map<std::string, std::string>& metadata);

}  // namespace tailor
