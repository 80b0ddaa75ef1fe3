#pragma once
/// Recipe: tune a decoder on conversations, instructions or completions, and make a package that answers with text.
/// Called by tune() and resume_tune() for data of that kind.

#include <string>

#include "core/cancel.h"
#include "core/json.h"
#include "core/result.h"
#include "fit/options.h"
#include "recipes/fit_ui.h"
#include "recipes/tune.h"

namespace tailor {

/// Whether the data are conversations and the like, and not a table with texts and labels.
bool tunes_texts(const TuneOptions& options);

Result<TuneSummary> tune_texts(TuneOptions options, const std::string& command_line, RunUi& ui,
                               const CancelToken& cancel);
/// `run`: run.json.
Result<TuneSummary> resume_texts(TuneOptions options, const Json& run, RunUi& ui, const CancelToken& cancel);

/// What training would see, for people: counts, and the first examples token by token with what is learnt. Writes
/// nothing.
struct TokenRun {
  bool learnt = false;
  std::vector<std::string> tokens;  // as text, control tokens shown
};
struct ShownRow {
  std::uint32_t line = 0;
  std::size_t tokens = 0, learnt = 0;
  bool cut = false;
  std::vector<TokenRun> runs;
};
struct TextPreview {
  std::string model, shape;
  std::size_t train = 0, validation = 0, test = 0;  // examples
  std::size_t rows = 0, tokens = 0;
  std::int64_t learnt = 0;
  std::size_t longest = 0, max_tokens = 0, truncated = 0, dropped = 0;
  std::vector<std::string> warnings;
  std::vector<ShownRow> shown;
};
Result<TextPreview> preview_texts(const TuneOptions& options, std::size_t rows, RunUi& ui);

}  // namespace tailor
