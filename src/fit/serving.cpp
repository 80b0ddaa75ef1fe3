#include "fit/serving.h"

#include "fit/methods.h"
#include "fit/tuned_encoder.h"

namespace tailor {

const std::vector<ServingKind>& serving_kinds() {
  static const std::vector<ServingKind> kKinds{
      {kServeTunedEncoder, load_tuned_encoder},
      {kServeScoredLabels, load_prompted},
  };
  return kKinds;
}

}  // namespace tailor
