#pragma once
/// Texts whose words carry tags: the rows, their tags by number, and the part that each stands in.

#include <cstdint>
#include <string>
#include <vector>

#include "core/result.h"
#include "core/token_file.h"
#include "data/tag_scheme.h"
#include "data/tagged_rows.h"
#include "fit/options.h"
#include "fit/row_split.h"
#include "model/tokenizer.h"

namespace tailor {

inline constexpr const char* kTaskTokens = "token-classification";  // of TuneOptions::task

struct PreparedTags : SplitData {
  std::vector<TaggedRow> rows;
  std::vector<std::vector<std::int32_t>> tags;  // by `scheme`, one a word
  TagScheme scheme;
};

/// Reads the files of `options` (data/tagged_rows.h; text_columns and label_column name the keys of JSON where they are
/// not the usual ones) and splits what is not given as a part, stratified by the rarest tag of a row; equal and nearly
/// equal texts stand in one part. A function of the files and the seed. Errors: those of reading, a tag that the
/// training file does not have, too few rows.
Result<PreparedTags> prepare_tags(const TuneOptions& options);

/// Rows of the token file are windows of at most `limit` tokens: a text that is longer has several, one after another,
/// with its number as their row id. Every word is answered once, at its first token, in the window that answers it when
/// it is served (model/word_tokens.h).
TokenFile tokenize_tags(const PreparedTags& data, const Tokenizer& tokenizer, std::size_t limit);

}  // namespace tailor
