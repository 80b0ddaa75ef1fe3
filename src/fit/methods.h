#pragma once
/// The methods' entry points, gathered by the table in candidates.cpp. One file a method: method_<name>.cpp.

#include <filesystem>
#include <memory>

#include "fit/candidates.h"

namespace tailor {

Estimate estimate_majority(const TrialContext& context);
Result<TrialOutcome> run_majority(TrialContext& context);
Result<std::unique_ptr<Classifier>> load_majority(const std::filesystem::path& package, const PackageManifest& manifest,
                                                  const PredictOptions& options);

Estimate estimate_tfidf(const TrialContext& context);
Result<TrialOutcome> run_tfidf(TrialContext& context);
Result<std::unique_ptr<Classifier>> load_tfidf(const std::filesystem::path& package, const PackageManifest& manifest,
                                               const PredictOptions& options);

Estimate estimate_features(const TrialContext& context);
Result<TrialOutcome> run_features(TrialContext& context);
Result<std::unique_ptr<Classifier>> load_features(const std::filesystem::path& package, const PackageManifest& manifest,
                                                  const PredictOptions& options);

Estimate estimate_neighbours(const TrialContext& context);
Result<TrialOutcome> run_neighbours(TrialContext& context);
Result<std::unique_ptr<Classifier>> load_neighbours(const std::filesystem::path& package,
                                                    const PackageManifest& manifest, const PredictOptions& options);

/// Every method of tailor-tune, by its row in tuned_search.h.
Estimate estimate_tuned_encoder(const TrialContext& context);
Result<TrialOutcome> run_tuned_encoder(TrialContext& context);
Estimate estimate_tuned_decoder(const TrialContext& context);
Result<TrialOutcome> run_tuned_decoder(TrialContext& context);

Estimate estimate_zero_shot(const TrialContext& context);
Result<TrialOutcome> run_zero_shot(TrialContext& context);
Estimate estimate_few_shot(const TrialContext& context);
Result<TrialOutcome> run_few_shot(TrialContext& context);
Estimate estimate_few_shot_retrieved(const TrialContext& context);
Result<TrialOutcome> run_few_shot_retrieved(TrialContext& context);
Result<std::unique_ptr<Classifier>> load_prompted(const std::filesystem::path& package, const PackageManifest& manifest,
                                                  const PredictOptions& options);

/// Mean tokens of a text of this data, for estimates; without a tokenizer, from the characters.
double mean_tokens(const TrialContext& context);
/// Tokens a second through the trial's model as an embedder.
double embedding_tokens_per_second(const TrialContext& context);
/// The same of a decoder as ModelUse::kPrompting has it.
double prompting_tokens_per_second(const TrialContext& context);

}  // namespace tailor
