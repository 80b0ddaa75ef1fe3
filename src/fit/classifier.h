#pragma once
/// What a package becomes when it is loaded: something that answers texts with probabilities.

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/cancel.h"
#include "core/matrix.h"
#include "core/progress.h"
#include "core/result.h"

namespace tailor {

/// A row that a package was fitted on.
struct NearRow {
  std::string text;
  std::int32_t label = 0;  // place in the manifest's labels
  float similarity = 0;    // cosine, -1 … 1, of the package's own vectors
};

/// One fitted method behind one interface; `fit` scores candidates and `predict` answers through it.
/// Threads: one caller at a time (implementations may use several threads inside).
class Classifier {
 public:
  virtual ~Classifier() = default;
  /// Probabilities [texts, labels]; each row sums to 1 (a method that ranks only some labels gives the others 0).
  virtual Result<Matrix> probabilities(std::span<const std::string> texts, const ProgressFn& progress,
                                       const CancelToken& cancel) = 0;
  /// Of each text the place of the highest probability, up to rounding; of equal ones the first. Quicker where a method
  /// need not compute the others for it.
  virtual Result<std::vector<std::int32_t>> best(std::span<const std::string> texts, const CancelToken& cancel);

  /// Whether the package holds the texts of the rows it was fitted on, for nearest().
  virtual bool holds_rows() const { return false; }
  /// Of each text `count` of these rows (all, where there are fewer), the nearest first. kUnavailable: it holds none.
  virtual Result<std::vector<std::vector<NearRow>>> nearest(std::span<const std::string> texts, std::size_t count,
                                                            const CancelToken& cancel);
};

/// Index of the largest value; the first one on ties, so that answers do not depend on the platform.
std::size_t argmax(std::span<const float> values);

}  // namespace tailor
