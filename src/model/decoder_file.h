#pragma once
/// What a GGUF file says of a decoder's tensors.

#include "core/decoder_layout.h"
#include "core/result.h"
#include "model/gguf_file.h"

namespace tailor {

/// Sizes from the metadata, options from the tensors that are there. Errors: an architecture outside core/'s families,
/// missing metadata. GPT-NeoX files always have an output layer, so `tied_output` is never set for them.
Result<DecoderSizes> decoder_sizes(const GgufFile& file);

}  // namespace tailor
