#pragma once
/// Step of tune by method distill for labels: what the teacher answers to the rows that the student learns from, and
/// how the comparison is kept fair.

#include <cstdint>
#include <string>
#include <vector>

#include "core/cancel.h"
#include "core/json.h"
#include "core/progress.h"
#include "core/result.h"
#include "core/token_file.h"
#include "fit/options.h"
#include "fit/predictions.h"
#include "fit/prepared_data.h"
#include "fit/tuned_model.h"
#include "recipes/fit_ui.h"

namespace tailor {

inline constexpr const char* kTeacherPredictions = "teacher_predictions.jsonl";  // of a run directory

/// What a student learns beside labels.
struct Taught {
  Predictions answers;             // of rows to learn from, and of the test part where the teacher can be asked
  std::vector<std::uint32_t> ids;  // rows of the data without a label that joined it
  Json about;                      // "teacher" of result.json
};

/// Asks the teacher, or reads what it answered before the run was interrupted (teacher_predictions.jsonl). Rows of
/// options.unlabelled_file join data.dataset with the label -1, except those that a validation or test row resembles.
/// Where the teacher learnt from the validation rows, they cannot choose: they join parts.train. A teacher that has
/// seen test rows is an error.
Result<Taught> ask_teacher(const TuneOptions& options, PreparedData& data, TokenParts& parts, int threads, RunUi& ui,
                           const ProgressFn& progress, const CancelToken& cancel);

/// The answers to training rows, in the place of soft targets.
void add_soft_targets(const Taught& taught, TokenFile& file);

}  // namespace tailor
