#pragma once
/// Texts whose words carry tags: named entities, slots, parts of speech.
///
/// Read are JSONL or a JSON array of
///   {"tokens": ["Anna", "left"], "tags": ["B-person", "O"]}      keys also words; ner_tags, labels, slots, pos_tags
///   {"text": "Anna left", "spans": [{"start": 0, "end": 4, "label": "person"}]}   keys also entities, label, labels;
///                                                                 a span also [0, 4, "person"]; places count
///                                                                 characters (code points), `end` is the first one
///                                                                 after it
/// and files of columns (CoNLL): a word a line, its columns apart by tabs or blanks, the word first and the tag last,
/// an empty line after each text; lines "-DOCSTART-" and comments before a text ("# …") are skipped.

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "core/result.h"
#include "text/word_spans.h"

namespace tailor {

struct TaggedRow {
  std::string text;               // as given, or the words with a blank between them
  std::vector<WordSpan> words;    // of it; never empty
  std::vector<std::string> tags;  // one a word, as written; of spans IOB2. Empty: the row has none
  bool in_words = false;          // the file gives words, not a text
  std::uint32_t line = 0;         // 1-based line of the file, or place in a JSON array
};

struct TaggedRows {
  std::vector<TaggedRow> rows;
  std::size_t empty = 0;        // rows without a word, left out
  std::size_t adjusted = 0;     // spans that begin or end inside a word; they cover it whole
  std::size_t overlapping = 0;  // spans that overlap an earlier one; left out
};

struct TaggedReadOptions {
  std::string words_key;  // of JSON; empty: found by its usual names (texts too)
  std::string tags_key;
  std::string encoding;    // as in CsvOptions
  bool needs_tags = true;  // false: rows without tags are rows to be answered
};

/// Errors name the file and line: broken JSON, keys that are missing or of another type, tags that are numbers (the
/// names are not in the file), another number of tags than of words, spans outside the text, a line of one column among
/// lines of several.
Result<TaggedRows> read_tagged_rows(const std::filesystem::path& file, const TaggedReadOptions& options);

/// A text as a row without tags.
TaggedRow untagged_row(std::string text);

}  // namespace tailor
