#pragma once
/// LoRA adapters as GGUF files, before llama.cpp sees them: it ends the process over a value of another type than it
/// expects, and at the first token over matrices that do not fit together.

#include "core/result.h"
#include "model/gguf_file.h"

namespace tailor {

/// Whether `adapter` is a LoRA adapter that llama.cpp can compute on `base`: pairs of matrices {in, rank} and {rank,
/// out} for weights that the model has, of types that it multiplies with. Errors (kInvalidArgument) say what does not
/// fit.
Status check_llama_adapter(const GgufFile& adapter, const GgufFile& base);

}  // namespace tailor
