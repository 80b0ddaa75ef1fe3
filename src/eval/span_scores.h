#pragma once
/// Scores of tagged words: spans found (entities), as seqeval and conlleval count them, and words tagged right. Tags
/// are numbers (core/tag_spans.h). Equal to seqeval's (tests: 1e-9).

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "core/json.h"
#include "core/tag_spans.h"
#include "eval/intervals.h"

namespace tailor {

using TagRows = std::vector<std::vector<std::int32_t>>;

struct TagScores {
  Interval accuracy;               // words with the right tag
  Interval precision, recall, f1;  // over all spans of all types ("micro"); of tags that mark no spans: unused
};
/// {"accuracy": {"value", "low", "high"}, "precision", "recall", "f1"}; without `spans` accuracy alone.
Json to_json(const TagScores& scores, bool spans);

/// Percentile bootstrap over rows, as bootstrap_scores(). Rows of truth and prediction have equal lengths; others throw
/// Exception{kInvalidArgument}.
TagScores bootstrap_tags(const TagRows& truth, const TagRows& predicted, const BootstrapOptions& options = {});

/// Counts of each type of span, by its number.
std::vector<SpanCounts> count_by_type(const TagRows& truth, const TagRows& predicted, std::size_t types);

}  // namespace tailor
