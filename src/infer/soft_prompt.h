#pragma once
/// Virtual tokens in front of every prompt that are no words: vectors (Lester et al., arXiv:2104.08691) or keys and
/// values of every layer (Li and Liang, arXiv:2101.00190). File: core/soft_prompt_file.h.

#include <filesystem>
#include <vector>

#include "core/matrix.h"
#include "core/result.h"

struct llama_context;

namespace tailor {

struct SoftPrompt {
  Matrix embeddings;                 // [n, width], or empty
  std::vector<Matrix> keys, values;  // by layer [n, kv heads * head width], or none

  int length() const;
  bool empty() const { return length() == 0; }
  static Result<SoftPrompt> load(const std::filesystem::path& file);
};

/// Puts the virtual tokens at positions 0 … n-1 of sequence 0 of an empty context, which takes `most` tokens a call.
/// Errors: sizes that do not fit the model.
Status decode_soft_prompt(llama_context* context, const SoftPrompt& prompt, int most);

}  // namespace tailor
