#pragma once
/// What the tags of words mean: spans with their labels and places, and all of it as JSON for files of predictions.

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "core/json.h"
#include "data/tagged_rows.h"
#include "fit/tagger.h"

namespace tailor {

std::vector<std::string> tag_names(std::span<const std::int32_t> tags, std::span<const std::string> labels);

/// A span that tags mark.
struct Entity {
  std::string label;                 // its type: "person" of "B-person"
  std::uint32_t begin = 0, end = 0;  // bytes of the row's text
  std::size_t first_word = 0, end_word = 0;
  float p = 0;  // the lowest of its words
};
/// From left to right; `labels`: those of a package whose tags mark spans.
std::vector<Entity> entities_of(const TaggedRow& row, const WordTags& answer, std::span<const std::string> labels);

/// The types of such a package, as entities name them.
std::vector<std::string> entity_labels(std::span<const std::string> labels);

/// {"text", "tokens", "tags", "p", "spans": [{"label", "text", "start", "end", "first_token", "end_token", "p"}]}:
/// start and end count characters (code points) of the text. Without `marks_spans` there are no spans.
Json tag_answer(const TaggedRow& row, const WordTags& answer, std::span<const std::string> labels, bool marks_spans);

}  // namespace tailor
