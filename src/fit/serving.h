#pragma once
/// The ways a package answers, by the name in its manifest ("serving"). A way joins by one entry in serving.cpp.

#include <filesystem>
#include <memory>
#include <string_view>
#include <vector>

#include "fit/package.h"

namespace tailor {

inline constexpr std::string_view kServeTunedEncoder = "tuned-encoder";  // GGUF encoder, mean pooled, one linear layer
inline constexpr std::string_view kServeTunedTargets =
    "tuned-targets";  // the same, answering as the manifest's target says
inline constexpr std::string_view kServeScoredLabels = "scored-labels";  // prompt, labels scored as a token trie
inline constexpr std::string_view kServeTags = "tags";                   // fit/tagger.h; not a classifier
inline constexpr std::string_view kServeSpan = "span";                   // fit/question_model.h; not a classifier
inline constexpr std::string_view kServeText = "text";                   // fit/text_model.h; not a classifier

struct ServingKind {
  std::string_view name;
  Result<std::unique_ptr<Classifier>> (*load)(const std::filesystem::path& package, const PackageManifest& manifest,
                                              const PredictOptions& options);
};
const std::vector<ServingKind>& serving_kinds();

}  // namespace tailor
