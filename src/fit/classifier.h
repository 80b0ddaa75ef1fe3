#pragma once
/// What a package becomes when it is loaded: something that answers texts with probabilities.

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/cancel.h"
#include "core/matrix.h"
#include "core/progress.h"
#include "core/result.h"

namespace tailor {

/// One fitted method behind one interface; `fit` scores candidates and `predict` answers through it.
/// Threads: one caller at a time (implementations may use several threads inside).
class Classifier {
 public:
  virtual ~Classifier() = default;
  /// Probabilities [texts, labels]; each row sums to 1 (a method that ranks only some labels gives the others 0).
  virtual Result<Matrix> probabilities(std::span<const std::string> texts, const ProgressFn& progress,
                                       const CancelToken& cancel) = 0;
};

/// Index of the largest value; the first one on ties, so that answers do not depend on the platform.
std::size_t argmax(std::span<const float> values);

}  // namespace tailor
