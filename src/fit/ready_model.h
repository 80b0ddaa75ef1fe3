#pragma once
/// Base models made ready to run, and how a package names them.

#include <filesystem>
#include <string>
#include <vector>

#include "core/progress.h"
#include "core/result.h"
#include "fit/package.h"
#include "model/catalogue.h"

namespace tailor {

enum class ModelUse {
  kServing,  // the GGUF for llama.cpp: imported or requantised as F16, decoders above a thousand million parameters as
             // Q8_0
  kPrompting,  // as kServing, and a decoder in blocks of 8 or 4 bits where this machine multiplies those several times
               // faster (infer/packed_matrix.h): as its file has them, else as Q8_0
  kRounded,    // as kServing, a decoder's matrices rounded to bf16 (model/rounded_model.h)
  kTraining,   // in the precision of its file: encoders imported as F32, decoders in the type of their weights, or the
               // GGUF that the user named
};

struct ReadyModel {
  std::filesystem::path gguf;
  BaseModel base;
};

/// Imports or requantises through model_cache_directory(), where it is not there yet.
Result<ReadyModel> ready_model(const ModelInfo& info, ModelUse use, const ProgressFn& progress);
/// The file of it, without its hash.
Result<std::filesystem::path> ready_gguf(const ModelInfo& info, ModelUse use, const ProgressFn& progress);

/// The model with these tokens in its vocabulary (model/added_tokens.h), kept in model_cache_directory(); it itself
/// where there are none.
Result<ReadyModel> with_added_tokens(ReadyModel model, const std::vector<std::string>& tokens);

/// How a package names its base when `file` in it holds tuned weights: the model they came from, with its hash.
BaseModel tuned_base(BaseModel base, const std::string& file);

/// Where imported and requantised models are kept: $TAILOR_CACHE/imported, or ~/.cache/tailor/imported.
std::filesystem::path model_cache_directory();

}  // namespace tailor
