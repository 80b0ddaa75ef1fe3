#include "fit/classifier.h"

#include <algorithm>

namespace tailor {

std::size_t argmax(std::span<const float> values) {
  return static_cast<std::size_t>(std::max_element(values.begin(), values.end()) - values.begin());
}

Result<std::vector<std::int32_t>> Classifier::best(std::span<const std::string> texts, const CancelToken& cancel) {
  TAILOR_TRY(const Matrix all, probabilities(texts, {}, cancel));
  std::vector<std::int32_t> out;
  for (std::size_t i = 0; i < all.rows; ++i) out.push_back(static_cast<std::int32_t>(argmax(all.row(i))));
  return out;
}

Result<std::vector<std::vector<NearRow>>> Classifier::nearest(std::span<const std::string>, std::size_t,
                                                              const CancelToken&) {
  return Error{ErrorCode::kUnavailable, "the package holds no training rows", ""};
}

}  // namespace tailor
