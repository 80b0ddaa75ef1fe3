#pragma once
/// Step of tune by method distill for conversations and completions: the student learns the teacher's own answers
/// (sequence-level distillation, Kim and Rush, arXiv:1606.07947).

#include "core/cancel.h"
#include "core/json.h"
#include "core/progress.h"
#include "core/result.h"
#include "fit/chat_data.h"
#include "fit/options.h"
#include "recipes/fit_ui.h"

namespace tailor {

inline constexpr const char* kTeacherAnswers = "teacher_answers.jsonl";  // of a run directory

/// options.teacher, a package that answers with text or a model by name or path, answers the last question of every
/// training and validation example with its likeliest tokens; the answer takes the place of the data's and is all that
/// is learnt of the example. Test examples stay as they are. Examples whose answer is empty or came to no end are left
/// out. Many are asked at a time; each answer is written to teacher_answers.jsonl when it is there, and a run that goes
/// on asks only for the others. The result is "teacher" of result.json. Errors: plain texts, which ask nothing; a
/// teacher of another form (chat, completion) than the data; no answer that can be learnt from.
Result<Json> teach_texts(const TuneOptions& options, PreparedChat& data, int threads, RunUi& ui,
                         const ProgressFn& progress, const CancelToken& cancel);

}  // namespace tailor
