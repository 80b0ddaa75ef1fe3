#pragma once
/// Encoders tuned by tailor-tune: the rows they learn from, and how they are served: the tuned (or merged) encoder as a
/// GGUF file, the head as one linear layer on its mean-pooled output.

#include <cstdint>
#include <filesystem>
#include <memory>

#include "core/token_file.h"
#include "fit/classifier.h"
#include "fit/tuned_model.h"
#include "model/gguf_file.h"
#include "model/tokenizer.h"

namespace tailor {

inline constexpr std::size_t kEncoderTokens = 256;  // longer texts are cut, in training as in serving

/// Row numbers of the token file are ids of the data.
TokenFile tokenize_for_encoder(const PreparedData& data, const Tokenizer& tokenizer, const TokenParts& parts);

/// Writes the head, and where the encoder was changed the whole of it (matrices as `matrices`) and its adapter, into
/// `package`. A head on an untouched encoder is served on `served`.
Result<TunedPackage> package_tuned_encoder(const TuneRun& run, const ReadyModel& trained_on, const ReadyModel& served,
                                           TensorType matrices, const std::filesystem::path& package);

Result<std::unique_ptr<Classifier>> load_tuned_encoder(const std::filesystem::path& package,
                                                       const PackageManifest& manifest, const PredictOptions& options);

}  // namespace tailor
