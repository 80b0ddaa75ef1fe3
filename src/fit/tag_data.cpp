#include "fit/tag_data.h"

#include <fmt/format.h>

#include "core/tag_spans.h"
#include "model/word_tokens.h"

namespace tailor {
namespace {

namespace fs = std::filesystem;

/// By the rarest tag of each row.
std::vector<std::int32_t> tag_strata(const PreparedTags& data) {
  const std::size_t width = data.scheme.names.size();
  std::vector<float> held(data.rows.size() * width, 0);
  for (std::size_t r = 0; r < data.rows.size(); ++r) {
    for (const std::int32_t tag : data.tags[r]) {
      const std::int32_t name = data.scheme.iob2 ? type_of_tag(tag) : tag;
      if (name >= 0) held[r * width + static_cast<std::size_t>(name)] = 1;
    }
  }
  return label_strata(held, width);
}

}  // namespace

Result<PreparedTags> prepare_tags(const TuneOptions& options) {
  PreparedTags data;
  const TaggedReadOptions reading{.words_key = options.text_columns.empty() ? "" : options.text_columns.front(),
                                  .tags_key = options.label_column,
                                  .encoding = options.encoding};
  const auto read_file = [&](const fs::path& file, Part part) -> Result<std::size_t> {
    TAILOR_TRY(TaggedRows read, read_tagged_rows(file, reading));
    const auto warn = [&](std::size_t n, const char* what) {
      if (n > 0) data.warnings.push_back(fmt::format("{}: {} {}", file.string(), n, what));
    };
    warn(read.empty, "row(s) without a word are left out");
    warn(read.adjusted, "span(s) begin or end inside a word: they cover the whole word");
    warn(read.overlapping, "span(s) overlap another one, or hold no word: they are left out");
    if (part == Part::kTrain) {
      std::vector<std::vector<std::string>> tags;
      for (const TaggedRow& row : read.rows) tags.push_back(row.tags);
      auto scheme = TagScheme::of(tags);
      if (!scheme)
        return Error{scheme.error().code, fmt::format("{}: {}", file.string(), scheme.error().message),
                     scheme.error().hint};
      data.scheme = std::move(*scheme);
    }
    for (TaggedRow& row : read.rows) {
      auto ids = data.scheme.ids_of(row.tags);
      if (!ids)
        return Error{ids.error().code, fmt::format("{}:{}: {}", file.string(), row.line, ids.error().message),
                     ids.error().hint};
      data.tags.push_back(std::move(*ids));
      data.rows.push_back(std::move(row));
    }
    return read.rows.size();
  };
  TAILOR_TRY(const GivenParts given, read_files(options, read_file, data));
  std::vector<std::string> texts;
  for (const TaggedRow& row : data.rows) texts.push_back(row.text);
  TAILOR_TRY(data.parts, split_rows(options, texts, tag_strata(data), given));
  return data;
}

TokenFile tokenize_tags(const PreparedTags& data, const Tokenizer& tokenizer, std::size_t limit) {
  TokenFile file;
  file.n_labels = static_cast<std::int32_t>(data.scheme.label_names().size());
  file.vocab_size = static_cast<std::int32_t>(tokenizer.vocabulary_size());
  file.iob2 = data.scheme.iob2;
  for (std::size_t r = 0; r < data.rows.size(); ++r) {
    const TaggedRow& row = data.rows[r];
    for (const WordTokens& window : encode_words(tokenizer, row.text, row.words, row.in_words, limit)) {
      file.add_row(window.ids, -1, data.parts[r], static_cast<std::int64_t>(r));
      const std::size_t begin = file.token_labels.size();
      file.token_labels.resize(begin + window.ids.size(), kNotAnswered);
      for (std::size_t i = 0; i < window.tokens.size(); ++i)
        file.token_labels[begin + window.tokens[i]] = data.tags[r][window.first_word + i];
    }
  }
  return file;
}

}  // namespace tailor
