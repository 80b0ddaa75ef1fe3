#include "fit/question_model.h"

#include <fmt/format.h>

#include "fit/serving.h"

namespace tailor {

Result<QuestionModel> QuestionModel::load(const std::filesystem::path& package, const PackageManifest& manifest,
                                          const PredictOptions& options) {
  if (manifest.serving != kServeSpan)
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("{} does not answer questions with a piece of a text", package.string()), ""};
  TAILOR_TRY(ServedEncoder encoder, open_served_encoder(package, manifest, 2, Pooling::kNone, options, kSpanTokens));
  return QuestionModel(std::move(encoder), manifest.target.no_answer);
}

Result<std::vector<SpanAnswer>> QuestionModel::answer(std::span<const QuestionRow> rows, const ProgressFn& progress,
                                                      const CancelToken& cancel) {
  const auto limit = static_cast<std::size_t>(encoder_.embedder.max_tokens());
  std::vector<std::vector<QuestionWindow>> windows;
  std::vector<std::vector<std::int32_t>> ids;
  for (const QuestionRow& row : rows) {
    windows.push_back(question_windows(row, encoder_.embedder.tokenizer(), limit));
    for (const QuestionWindow& window : windows.back()) ids.push_back(window.ids);
  }
  std::vector<std::vector<float>> scores(ids.size());
  const auto width = static_cast<std::size_t>(encoder_.embedder.dim());
  const auto store = [&](std::size_t w, std::span<const float> states) {
    scores[w].resize(2 * ids[w].size());
    for (std::size_t t = 0; t < ids[w].size(); ++t)
      encoder_.score(states.subspan(t * width, width), std::span(scores[w]).subspan(2 * t, 2));
  };
  TAILOR_CHECK(encoder_.embedder.token_states(ids, store, progress, cancel));
  std::vector<SpanAnswer> out;
  std::size_t next = 0;
  for (std::size_t r = 0; r < rows.size(); ++r) {
    out.push_back(choose_span(rows[r], windows[r], std::span(scores).subspan(next, windows[r].size()), no_answer_));
    next += windows[r].size();
  }
  return out;
}

}  // namespace tailor
