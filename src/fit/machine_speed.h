#pragma once
/// A short measurement of what this machine does, so that estimates are of this machine and not of ours.

#include <vector>

#include "core/cancel.h"
#include "core/result.h"
#include "fit/candidates.h"

namespace tailor {

/// About two seconds: one f32 matrix product, and a few texts through each kind of model among `models`.
Result<MachineSpeed> measure_machine(const std::vector<TrialModel>& models, int threads, const CancelToken& cancel);

}  // namespace tailor
