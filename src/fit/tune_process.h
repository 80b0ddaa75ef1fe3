#pragma once
/// `tailor-tune` as `tailor` sees it: a program that may or may not be there, a job file in, events out
/// (docs/TUNE_JOB.md).

#include <filesystem>
#include <functional>

#include "core/cancel.h"
#include "core/json.h"
#include "core/progress.h"
#include "core/result.h"

namespace tailor {

/// $TAILOR_TUNE, or tailor-tune beside the running program; empty where there is none.
std::filesystem::path find_tune_program();

struct TuneRun {
  Json result;                      // result.json of the job
  std::filesystem::path directory;  // with the files that `result["files"]` names
};

/// Writes job.json into `directory`, runs tailor-tune on it, and reads result.json. A job that was interrupted goes on
/// from its checkpoint. Events become `progress` and go to `on_event`; an error event becomes the error.
Result<TuneRun> run_tune(Json job, const std::filesystem::path& directory, int threads, std::string_view stage,
                         const ProgressFn& progress, const CancelToken& cancel,
                         const std::function<void(const Json&)>& on_event = {});

}  // namespace tailor
