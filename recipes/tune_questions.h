#pragma once
/// An encoder that answers questions with a piece of a text (SQuAD): --task span-extraction.

#include <memory>

#include "recipes/encoder_task.h"

namespace tailor {

bool tunes_questions(const TuneOptions& options);
std::unique_ptr<EncoderTask> question_task(TuneOptions options, RunUi& ui, const CancelToken& cancel);

}  // namespace tailor
