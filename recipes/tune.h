#pragma once
/// Recipe: tune one model by one method, and make a package of it. Reads and splits the data, tokenises, trains in
/// tailor-tune, folds what was trained into a file that llama.cpp serves, and measures whether the package answers as
/// the trainer did.

#include <filesystem>
#include <string>

#include "core/cancel.h"
#include "core/json.h"
#include "core/result.h"
#include "fit/options.h"
#include "recipes/fit_ui.h"

namespace tailor {

struct TuneSummary {
  std::filesystem::path run;
  Json result;  // as in result.json
};

/// A new run. `options.out` must be empty or not there. `command_line`: as the user typed it, for the record.
Result<TuneSummary> tune(TuneOptions options, const std::string& command_line, RunUi& ui, const CancelToken& cancel);

/// Goes on with an interrupted run from its checkpoint. `given`: options that were named again, as config/tune_config.h
/// gives them; threads, the deadline and how often is saved may change, all else must be as the run began.
Result<TuneSummary> resume_tune(const std::filesystem::path& run, const Json& given, RunUi& ui,
                                const CancelToken& cancel);

}  // namespace tailor
