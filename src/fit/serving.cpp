#include "fit/serving.h"

#include "fit/methods.h"
#include "fit/tuned_encoder.h"

namespace tailor {
namespace {

Result<std::unique_ptr<Classifier>> refuse_text(const std::filesystem::path& package, const PackageManifest&,
                                                const PredictOptions&) {
  return Error{ErrorCode::kInvalidArgument, package.string() + " answers with text, not with labels",
               "tailor generate " + package.string() + " \"your text\""};
}

Result<std::unique_ptr<Classifier>> refuse_tags(const std::filesystem::path& package, const PackageManifest&,
                                                const PredictOptions&) {
  return Error{ErrorCode::kInvalidArgument, package.string() + " answers with a tag for each word, not with labels",
               "tailor predict " + package.string() + " \"your text\""};
}

Result<std::unique_ptr<Classifier>> refuse_span(const std::filesystem::path& package, const PackageManifest&,
                                                const PredictOptions&) {
  return Error{ErrorCode::kInvalidArgument,
               package.string() + " answers questions with a piece of a text, not with labels",
               "tailor predict " + package.string() + " \"a question\" \"a text\""};
}

}  // namespace

const std::vector<ServingKind>& serving_kinds() {
  static const std::vector<ServingKind> kKinds{
      {kServeTunedEncoder, load_tuned_encoder},
      {kServeTunedTargets, load_tuned_encoder},
      {kServeScoredLabels, load_prompted},
      {kServeText, refuse_text},
      {kServeTags, refuse_tags},
      {kServeSpan, refuse_span},
  };
  return kKinds;
}

}  // namespace tailor
