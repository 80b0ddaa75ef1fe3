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

}  // namespace

const std::vector<ServingKind>& serving_kinds() {
  static const std::vector<ServingKind> kKinds{
      {kServeTunedEncoder, load_tuned_encoder},
      {kServeTunedTargets, load_tuned_encoder},
      {kServeScoredLabels, load_prompted},
      {kServeText, refuse_text},
  };
  return kKinds;
}

}  // namespace tailor
