#include "fit/tagger.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "fit/serving.h"
#include "model/word_tokens.h"

namespace tailor {
namespace {

bool mark_spans(const std::vector<std::string>& labels) {
  bool good = labels.size() % 2 == 1 && labels[0] == "O";
  for (std::size_t i = 1; good && i < labels.size(); ++i)
    good = labels[i].size() > 2 && labels[i].starts_with(i % 2 == 1 ? "B-" : "I-");
  return good;
}

}  // namespace

Result<Tagger> Tagger::load(const std::filesystem::path& package, const PackageManifest& manifest,
                            const PredictOptions& options) {
  if (manifest.serving != kServeTags)
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("{} does not answer with a tag for each word", package.string()), ""};
  if (manifest.target.spans && !mark_spans(manifest.labels))
    return Error{ErrorCode::kCorruptData,
                 fmt::format("{}: its labels are not O, and B- and I- of each type", package.string()),
                 "make the package again"};
  TAILOR_TRY(ServedEncoder encoder,
             open_served_encoder(package, manifest, manifest.labels.size(), Pooling::kNone, options));
  return Tagger(std::move(encoder));
}

Result<std::vector<WordTags>> Tagger::tag(std::span<const TaggedRow> rows, const ProgressFn& progress,
                                          const CancelToken& cancel) {
  std::vector<WordTags> out(rows.size());
  std::vector<std::vector<std::int32_t>> windows;
  struct Window {
    std::size_t row, word;  // the first that is answered
    std::vector<std::uint32_t> tokens;
  };
  std::vector<Window> answers;
  const auto limit = static_cast<std::size_t>(encoder_.embedder.max_tokens());
  for (std::size_t r = 0; r < rows.size(); ++r) {
    const TaggedRow& row = rows[r];
    for (WordTokens& window : encode_words(encoder_.embedder.tokenizer(), row.text, row.words, row.in_words, limit)) {
      answers.push_back({r, window.first_word, std::move(window.tokens)});
      windows.push_back(std::move(window.ids));
    }
    out[r].tags.resize(row.words.size());
    out[r].probabilities.resize(row.words.size());
  }
  const auto width = static_cast<std::size_t>(encoder_.embedder.dim());
  const auto store = [&](std::size_t w, std::span<const float> states) {
    const Window& a = answers[w];
    std::vector<float> scores(encoder_.weight.rows);
    for (std::size_t i = 0; i < a.tokens.size(); ++i) {
      encoder_.score(states.subspan(a.tokens[i] * width, width), scores);
      const auto best = std::max_element(scores.begin(), scores.end());
      double total = 0;
      for (const float s : scores) total += std::exp(static_cast<double>(s) - *best);
      out[a.row].tags[a.word + i] = static_cast<std::int32_t>(best - scores.begin());
      out[a.row].probabilities[a.word + i] = static_cast<float>(1 / total);
    }
  };
  TAILOR_CHECK(encoder_.embedder.token_states(windows, store, progress, cancel));
  return out;
}

}  // namespace tailor
