#pragma once
/// An encoder that answers each word of a text with a tag (named entities, slots, parts of speech):
/// --task token-classification.

#include <memory>

#include "recipes/encoder_task.h"

namespace tailor {

bool tunes_tags(const TuneOptions& options);
std::unique_ptr<EncoderTask> tag_task(TuneOptions options, RunUi& ui, const CancelToken& cancel);

}  // namespace tailor
