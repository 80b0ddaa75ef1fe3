#pragma once
/// Recipe: tune an encoder to answer each word of a text with a tag (named entities, slots, parts of speech), and make
/// a package of it. Called by tune() and resume_tune() for --task token-classification.

#include <string>

#include "core/cancel.h"
#include "core/json.h"
#include "core/result.h"
#include "fit/options.h"
#include "recipes/fit_ui.h"
#include "recipes/tune.h"

namespace tailor {

bool tunes_tags(const TuneOptions& options);

Result<TuneSummary> tune_tags(TuneOptions options, const std::string& command_line, RunUi& ui,
                              const CancelToken& cancel);
/// `run`: run.json.
Result<TuneSummary> resume_tags(TuneOptions options, const Json& run, RunUi& ui, const CancelToken& cancel);

}  // namespace tailor
