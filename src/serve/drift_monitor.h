#pragma once
/// What is asked and answered, for whoever compares it with the training data: the seam where drift comes in. Unlike
/// RequestObserver this is content: nothing here may write it to a log, a metric or a trace.

#include <span>
#include <string>

#include "core/json.h"

namespace tailor {

struct ServedModel;  // served_model.h

/// Threads: called from any, concurrently, on threads that compute: must be quick.
class DriftMonitor {
 public:
  virtual ~DriftMonitor() = default;
  /// `answers`: an array, for each text what /v1/classify tells of it.
  virtual void on_classified(const ServedModel& model, std::span<const std::string> texts, const Json& answers) = 0;
};

}  // namespace tailor
