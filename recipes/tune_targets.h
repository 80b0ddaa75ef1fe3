#pragma once
/// Recipe: tune an encoder to answer texts with a number (regression) or with those of several labels that hold
/// (multi-label), and make a package of it. Called by tune() and resume_tune() for these tasks.

#include <string>

#include "core/cancel.h"
#include "core/json.h"
#include "core/result.h"
#include "fit/options.h"
#include "recipes/fit_ui.h"
#include "recipes/tune.h"

namespace tailor {

bool tunes_targets(const TuneOptions& options);

Result<TuneSummary> tune_targets(TuneOptions options, const std::string& command_line, RunUi& ui,
                                 const CancelToken& cancel);
/// `run`: run.json.
Result<TuneSummary> resume_targets(TuneOptions options, const Json& run, RunUi& ui, const CancelToken& cancel);

}  // namespace tailor
