#include "recipes/optimize.h"

#include <fmt/format.h>

#include <algorithm>

#include "core/files.h"
#include "core/system.h"
#include "data/chat_examples.h"
#include "eval/resampling.h"
#include "fit/chat_data.h"
#include "fit/optimized_model.h"
#include "fit/paths.h"
#include "fit/ready_model.h"
#include "fit/text_encoder.h"
#include "model/catalogue.h"
#include "model/file_hash.h"
#include "model/requantize.h"

namespace tailor {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kRowTokens = 256;  // of a plain text
constexpr std::size_t kLongestRow = 1024;
constexpr std::size_t kReferenceBytes = std::size_t{768} << 20;
constexpr QuantType kTypes[] = {QuantType::kF16,  QuantType::kQ8_0, QuantType::kQ6K,
                                QuantType::kQ5KM, QuantType::kQ4KM, QuantType::kQ4_0};

/// Rows in the data's order, until enough tokens count.
Result<std::vector<ScoredRow>> read_rows(const fs::path& data, const fs::path& gguf, std::size_t most) {
  std::vector<ScoredRow> rows;
  std::size_t counted = 0;
  const auto add = [&](ScoredRow row) {
    if (row.tokens.size() > kLongestRow) {
      row.tokens.resize(kLongestRow);
      row.mask.resize(kLongestRow);
    }
    for (std::size_t i = 0; i < row.mask.size(); ++i) {
      if (i == 0 || counted >= most) row.mask[i] = 0;
      counted += row.mask[i];
    }
    if (std::count(row.mask.begin(), row.mask.end(), 1) > 0) rows.push_back(std::move(row));
    return counted < most;
  };
  if (data.extension() == ".txt" || data.extension() == ".md") {
    TAILOR_TRY(const TextEncoder encoder, TextEncoder::load(gguf, ExampleForm::kText));
    TAILOR_TRY(const std::string text, read_file(data, std::size_t{64} << 20));
    const TokenList tokens = encoder.tokenizer().encode(text, false);
    for (std::size_t first = 0; first < tokens.size(); first += kRowTokens) {
      ScoredRow row;
      row.tokens.assign(tokens.begin() + static_cast<std::ptrdiff_t>(first),
                        tokens.begin() + static_cast<std::ptrdiff_t>(std::min(tokens.size(), first + kRowTokens)));
      row.mask.assign(row.tokens.size(), 1);
      if (!add(std::move(row))) break;
    }
  } else {
    TAILOR_TRY(const ChatData chat, read_chat_examples(data));
    TAILOR_TRY(const TextEncoder encoder, TextEncoder::load(gguf, chat.examples[0].form));
    for (const ChatExample& example : chat.examples) {
      TAILOR_TRY(std::vector<TrainingRow> made, rows_of_example(example, encoder.encoder()));
      bool more = true;
      for (TrainingRow& row : made) more = more && add({std::move(row.tokens), std::move(row.mask)});
      if (!more) break;
    }
  }
  if (rows.empty())
    return Error{ErrorCode::kInvalidArgument, fmt::format("{}: nothing in it counts as a prediction", data.string()),
                 "give conversations or a longer text"};
  return rows;
}

/// Of the mean loss a token, rows drawn with replacement.
Interval bootstrap_difference(const FormatQuality& a, const FormatQuality& b) {
  std::vector<double> draws;
  resample(a.row_loss.size(), {}, [&](const std::vector<std::size_t>& chosen) {
    double sum = 0, tokens = 0;
    for (const std::size_t r : chosen) {
      sum += (a.row_loss[r] - b.row_loss[r]) * a.row_tokens[r];
      tokens += a.row_tokens[r];
    }
    draws.push_back(sum / std::max(1.0, tokens));
  });
  return percentiles(a.loss - b.loss, std::move(draws), BootstrapOptions().confidence);
}

}  // namespace

Result<OptimizeSummary> optimize_model(const OptimizeOptions& options,
                                       const std::function<void(const FormatFigures&)>& measured,
                                       const CancelToken& cancel) {
  const int threads = options.threads > 0 ? options.threads : system_info().cores;
  TAILOR_TRY(const ModelInfo info, resolve_model(options.model, default_models_directory()));
  if (info.kind != ModelKind::kDecoder)
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("{} is an encoder; weight types are measured for decoders", info.id), ""};
  TAILOR_TRY(const fs::path original, ready_gguf(info, ModelUse::kTraining, {}));
  TAILOR_TRY(const std::string sha256, cached_sha256(original));
  const std::size_t most = std::min(options.tokens, kReferenceBytes / (4 * std::max<std::size_t>(1, info.vocabulary)));
  TAILOR_TRY(std::vector<ScoredRow> rows, read_rows(options.data, original, most));
  TAILOR_TRY(const ReferencePredictions reference,
             ReferencePredictions::make(original, std::move(rows), threads, cancel));
  OptimizeSummary out;
  out.rows = reference.rows().size();
  out.tokens = reference.counted();
  const auto measure = [&](const std::string& name, const fs::path& file, bool is_original) -> Status {
    FormatFigures& f = out.formats.emplace_back();
    f.name = name;
    f.file = file;
    f.original = is_original;
    std::error_code ignored;
    f.bytes = fs::file_size(file, ignored);
    TAILOR_TRY(f.speed, measure_speed(file, options.prompt_tokens, options.answer_tokens, threads, cancel));
    f.seconds = options.prompt_tokens / f.speed.prompt_tokens_per_second +
                options.answer_tokens / f.speed.answer_tokens_per_second;
    TAILOR_TRY(f.quality, measure_quality(file, reference, threads, cancel));
    f.difference = bootstrap_difference(f.quality, out.formats.front().quality);
    f.worse = !is_original && f.difference.high > options.max_loss;
    measured(f);
    return {};
  };
  TAILOR_CHECK(measure(info.file_type.empty() ? "as it is" : info.file_type, original, true));
  for (const QuantType type : kTypes) {
    if (name_of(type) == info.file_type) continue;
    if (cancel.cancelled()) return Error{ErrorCode::kCancelled, "measuring was interrupted", ""};
    TAILOR_TRY(const fs::path file, requantize_cached(original, model_cache_directory(), type, threads));
    TAILOR_CHECK(measure(std::string(name_of(type)), file, false));
  }
  FormatFigures* best = nullptr;
  for (FormatFigures& f : out.formats) {
    if (!f.worse && (best == nullptr || f.seconds < best->seconds)) best = &f;
  }
  best->chosen = true;
  out.record = optimized_record(sha256);
  TAILOR_CHECK(record_optimized(sha256, best->file, best->name, to_json(out)));
  return out;
}

Json to_json(const OptimizeSummary& summary) {
  Json formats = Json::array();
  for (const FormatFigures& f : summary.formats) {
    formats.push_back({{"type", f.name},
                       {"original", f.original},
                       {"chosen", f.chosen},
                       {"bytes", f.bytes},
                       {"prompt_tokens_per_second", f.speed.prompt_tokens_per_second},
                       {"answer_tokens_per_second", f.speed.answer_tokens_per_second},
                       {"request_seconds", f.seconds},
                       {"loss", f.quality.loss},
                       {"accuracy", f.quality.accuracy},
                       {"kl", f.quality.kl},
                       {"same_choice", f.quality.same_choice},
                       {"loss_difference", to_json(f.difference)},
                       {"worse", f.worse}});
  }
  return {{"rows", summary.rows}, {"tokens", summary.tokens}, {"formats", std::move(formats)}};
}

}  // namespace tailor
