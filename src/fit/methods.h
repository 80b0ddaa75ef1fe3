#pragma once
/// The methods' entry points, gathered by the table in candidates.cpp. One file a method: method_<name>.cpp.

#include <filesystem>
#include <memory>

#include "fit/candidates.h"

namespace tailor {

#define TAILOR_DECLARE_METHOD(name)                              \
  Estimate estimate_##name(const TrialContext& context);         \
  Result<TrialOutcome> run_##name(TrialContext& context);        \
  Result<std::unique_ptr<Classifier>> load_##name(const std::filesystem::path& package, const PackageManifest& manifest, const PredictOptions& options)

TAILOR_DECLARE_METHOD(majority);
TAILOR_DECLARE_METHOD(tfidf);
TAILOR_DECLARE_METHOD(features);
TAILOR_DECLARE_METHOD(neighbours);

#undef TAILOR_DECLARE_METHOD

/// Mean tokens of a text of this data, for estimates; without a tokenizer, from the characters.
double mean_tokens(const TrialContext& context);
/// Tokens a second through the trial's model as an embedder.
double embedding_tokens_per_second(const TrialContext& context);

}  // namespace tailor
