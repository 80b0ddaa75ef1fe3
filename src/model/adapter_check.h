#pragma once
/// LoRA adapters as GGUF files, before llama.cpp sees them: it ends the process over a value of another type than it
/// expects, and at the first token over matrices that do not fit together.

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "core/result.h"
#include "model/gguf_file.h"

namespace tailor {

/// What an adapter must fit of the model that it changes; known from the file that the model is loaded from.
struct AdapterBase {
  std::string name;                                                       // of the file, for messages
  std::string architecture;                                               // empty: the file names none
  bool encoder = false;                                                   // no causal attention
  std::map<std::string, std::vector<std::uint64_t>, std::less<>> shapes;  // of its weights, as GgufTensor has them

  static AdapterBase of(const GgufFile& model);
};

/// Whether `adapter` is a LoRA adapter that llama.cpp can compute on `base`: pairs of matrices {in, rank} and {rank,
/// out} for weights that the model has, of types that it multiplies with. Errors (kInvalidArgument) say what does not
/// fit.
Status check_llama_adapter(const GgufFile& adapter, const AdapterBase& base);

}  // namespace tailor
