#pragma once
/// Tags of words as JSON, for files of predictions.

#include <span>
#include <string>
#include <vector>

#include "core/json.h"
#include "data/tagged_rows.h"
#include "fit/tagger.h"

namespace tailor {

std::vector<std::string> tag_names(std::span<const std::int32_t> tags, std::span<const std::string> labels);

/// {"text", "tokens", "tags", "p", "spans": [{"label", "text", "start", "end", "first_token", "end_token", "p"}]}:
/// start and end count characters (code points) of the text, `p` of a span is the lowest of its words. Without
/// `marks_spans` there are no spans.
Json tag_answer(const TaggedRow& row, const WordTags& answer, std::span<const std::string> labels, bool marks_spans);

}  // namespace tailor
