#pragma once
/// The figures of a fine-tuning job's steps, as its events and its results file have them.

#include <cstdint>
#include <map>
#include <string>

#include "core/json.h"
#include "core/log.h"
#include "store/job_store.h"

namespace tailor {

using JobFigures = std::map<std::int64_t, Json>;  // by step

/// Under all names that OpenAI has for them: every evaluation here is one of the whole validation part.
Json with_other_names(Json metrics);

/// Of its events, also those before a restart. A step that was made again counts as it was the last time. kUnavailable:
/// the store is held; what cannot be read for another reason is warned of and left out.
Result<JobFigures> figures_of(const JobStore& jobs, const Job& job, Logger& log);

/// A line for each step. The first five columns are those of OpenAI's file, in its order.
std::string csv_of(const JobFigures& steps);

}  // namespace tailor
