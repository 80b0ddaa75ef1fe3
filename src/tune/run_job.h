#pragma once
/// Recipe: one training job from files to files. Reads the base and the token file, trains, writes result.json,
/// weights, and predictions into job.out (docs/TUNE_JOB.md).

#include <nlohmann/json_fwd.hpp>

#include "core/cancel.h"
#include "core/result.h"
#include "tune/events.h"
#include "tune/settings.h"

namespace tailor::tune {

/// The content of result.json. Out of memory comes as std::bad_alloc or c10::OutOfMemoryError; the last checkpoint
/// stays.
Result<nlohmann::ordered_json> run_job(const Job& job, const EventSink& events, const CancelToken& cancel,
                                       SteadyTime process_start);

}  // namespace tailor::tune
