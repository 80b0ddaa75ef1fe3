#pragma once
/// An encoder that answers texts with a number (--task regression) or with those of several labels that hold
/// (--task multi-label).

#include <memory>

#include "recipes/encoder_task.h"

namespace tailor {

bool tunes_targets(const TuneOptions& options);
std::unique_ptr<EncoderTask> target_task(TuneOptions options, RunUi& ui, const CancelToken& cancel);

}  // namespace tailor
