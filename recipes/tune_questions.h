#pragma once
/// Recipe: tune an encoder to answer questions with a piece of a text (SQuAD), and make a package of it. Called by
/// tune() and resume_tune() for --task span-extraction.

#include <string>

#include "core/cancel.h"
#include "core/json.h"
#include "core/result.h"
#include "fit/options.h"
#include "recipes/fit_ui.h"
#include "recipes/tune.h"

namespace tailor {

bool tunes_questions(const TuneOptions& options);

Result<TuneSummary> tune_questions(TuneOptions options, const std::string& command_line, RunUi& ui,
                                   const CancelToken& cancel);
/// `run`: run.json.
Result<TuneSummary> resume_questions(TuneOptions options, const Json& run, RunUi& ui, const CancelToken& cancel);

}  // namespace tailor
