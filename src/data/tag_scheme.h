#pragma once
/// Tags as people write them, and the numbers that are trained on (core/tag_spans.h).

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "core/result.h"

namespace tailor {

struct TagScheme {
  bool iob2 = false;               // tags mark spans: names are their types; else each name is a tag
  std::vector<std::string> names;  // sorted

  /// By the tags of the rows to train on. Spans where every tag is O, or a letter of IOB, BIOES or BILOU with "-" and a
  /// type ("B-person"). Error: fewer than two different tags.
  static Result<TagScheme> of(std::span<const std::vector<std::string>> rows);
  /// The scheme whose label_names() these are.
  static TagScheme of_labels(std::vector<std::string> labels, bool iob2);

  std::vector<std::string> label_names() const;  // of each number: "O", "B-person", "I-person", …
  /// The numbers of a row's tags. Spans stay what they are in the sense of conlleval and seqeval: "I-" where nothing
  /// went before begins one, S- and U- are spans of one word. The error names the tag that is not known, and the
  /// nearest.
  Result<std::vector<std::int32_t>> ids_of(std::span<const std::string> tags) const;
};

}  // namespace tailor
