#pragma once
/// Encoders tuned by tailor-tune: the rows they learn from, and how they are served. What is trained is served through
/// llama.cpp: the tuned (or merged) encoder as a GGUF file, the head as one linear layer on its mean-pooled output.

#include <cstdint>
#include <filesystem>
#include <memory>

#include "core/token_file.h"
#include "fit/classifier.h"
#include "fit/package.h"
#include "fit/predictions.h"
#include "fit/prepared_data.h"
#include "fit/ready_model.h"
#include "fit/tune_process.h"
#include "model/gguf_file.h"
#include "model/tokenizer.h"

namespace tailor {

inline constexpr std::size_t kEncoderTokens = 256;  // longer texts are cut, in training as in serving

/// Rows of the data by the part of the token file they go to.
struct TokenParts {
  RowSet train, validation, test;
};

/// Row numbers of the token file are ids of the data.
TokenFile tokenize_for_encoder(const PreparedData& data, const Tokenizer& tokenizer, const TokenParts& parts);

/// What tailor-tune answered ("validation_predictions.safetensors", "test_predictions.safetensors").
Result<Predictions> read_tune_predictions(const PreparedData& data, const std::filesystem::path& file);

/// The encoder of `base` with the tensors of `weights` in place, as llama.cpp runs it; matrices as `matrices`.
Status write_tuned_gguf(const std::filesystem::path& base, const std::filesystem::path& weights, TensorType matrices,
                        const std::filesystem::path& to);

struct TunedPackage {
  BaseModel base;                   // as the manifest names it
  std::uint64_t trained_bytes = 0;  // of what was trained, without the base
};

/// Writes the head, and where the encoder was changed the whole of it (matrices as `matrices`) and its adapter, into
/// `package`. A head on an untouched encoder is served on `served`.
Result<TunedPackage> package_tuned_encoder(const TuneRun& run, const ReadyModel& trained_on, const ReadyModel& served,
                                           TensorType matrices, const std::filesystem::path& package);

Result<std::unique_ptr<Classifier>> load_tuned_encoder(const std::filesystem::path& package,
                                                       const PackageManifest& manifest, const PredictOptions& options);

}  // namespace tailor
