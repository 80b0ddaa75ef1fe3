#pragma once
/// What packages answer, as the API tells it.

#include <string>

#include "core/json.h"
#include "serve/package_backends.h"
#include "text/offsets.h"

namespace tailor {

/// {"index", "label", "confidence", "probabilities", "nearest"}, or "labels", or "value". `all`: with probabilities.
Json label_json(const LabelBackend& labels, const LabelAnswer& answer, std::size_t index, bool all);

/// [{"label", "text", "start", "end", "score"}], from left to right; the score is the lowest of its words.
Json entities_json(const TagBackend& tags, const TaggedRow& row, const WordTags& answer, OffsetUnit unit);
/// The same for every word; its label is its tag.
Json words_json(const TagBackend& tags, const TaggedRow& row, const WordTags& answer, OffsetUnit unit);

/// {"index", "answer", "start", "end", "score"}; null, null, null and "no_answer" where the text has none.
Json span_json(const QuestionRow& row, const SpanAnswer& answer, std::size_t index, OffsetUnit unit);
/// Tokens of the question and of its text.
std::size_t question_tokens(const SpanBackend& spans, const QuestionRow& row);

}  // namespace tailor
