#include "infer/weight_format.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <functional>

#include "infer/llama_context.h"
#include "infer/log_softmax.h"

namespace tailor {
namespace {

constexpr std::size_t kSlice = 64;  // tokens whose logits are in memory at once

Result<LlamaContextPtr> make_context(const LoadedModel& model, std::size_t tokens, int threads) {
  llama_context_params params = llama_context_default_params();
  params.n_ctx = static_cast<std::uint32_t>((tokens + 255) / 256 * 256);
  params.n_batch = params.n_ubatch = 512;
  params.n_threads = params.n_threads_batch = threads;
  params.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_DISABLED;
  params.no_perf = true;
  return model.make_context(params);
}

using TakeLogits = std::function<void(std::size_t row, std::int32_t token, std::span<const float> logits)>;

/// The logits before every counted token.
Status each_prediction(const LoadedModel& model, std::span<const ScoredRow> rows, int threads,
                       const CancelToken& cancel, const TakeLogits& take) {
  std::size_t longest = 1;
  for (const ScoredRow& row : rows) longest = std::max(longest, row.tokens.size());
  TAILOR_TRY(const LlamaContextPtr context, make_context(model, longest, threads));
  const auto vocabulary = static_cast<std::size_t>(model.vocabulary());
  for (std::size_t r = 0; r < rows.size(); ++r) {
    llama_memory_clear(llama_get_memory(context.get()), false);
    const ScoredRow& row = rows[r];
    for (std::size_t first = 0; first + 1 < row.tokens.size(); first += kSlice) {
      if (cancel.cancelled()) return Error{ErrorCode::kCancelled, "measuring was interrupted", ""};
      const std::size_t last = std::min(row.tokens.size() - 1, first + kSlice);
      DecodeBatch batch;
      std::vector<int> indices;
      for (std::size_t i = first; i < last; ++i)
        indices.push_back(batch.add(row.tokens[i], static_cast<int>(i), {0, 1}, row.mask[i + 1] != 0));
      TAILOR_CHECK(batch.decode(context.get(), model.name()));
      for (std::size_t i = first; i < last; ++i) {
        if (row.mask[i + 1] != 0)
          take(r, row.tokens[i + 1], {llama_get_logits_ith(context.get(), indices[i - first]), vocabulary});
      }
    }
  }
  return {};
}

}  // namespace

Result<ReferencePredictions> ReferencePredictions::make(const std::filesystem::path& gguf, std::vector<ScoredRow> rows,
                                                        int threads, const CancelToken& cancel) {
  TAILOR_TRY(const auto model, LoadedModel::load(gguf, {}));
  TAILOR_CHECK(model->require_decoder("predictions can be compared"));
  ReferencePredictions out;
  out.rows_ = std::move(rows);
  out.vocabulary_ = static_cast<std::size_t>(model->vocabulary());
  TAILOR_CHECK(each_prediction(*model, out.rows_, threads, cancel,
                               [&](std::size_t, std::int32_t token, std::span<const float> logits) {
                                 const double total = log_sum_exp(logits);
                                 out.tokens_.push_back(token);
                                 for (const float logit : logits)
                                   out.log_p_.push_back(static_cast<float>(static_cast<double>(logit) - total));
                               }));
  return out;
}

Result<FormatQuality> measure_quality(const std::filesystem::path& gguf, const ReferencePredictions& reference,
                                      int threads, const CancelToken& cancel) {
  TAILOR_TRY(const auto model, LoadedModel::load(gguf, {}));
  FormatQuality out;
  out.row_loss.assign(reference.rows().size(), 0);
  out.row_tokens.assign(reference.rows().size(), 0);
  std::size_t i = 0;
  TAILOR_CHECK(each_prediction(*model, reference.rows(), threads, cancel,
                               [&](std::size_t row, std::int32_t token, std::span<const float> logits) {
                                 const double total = log_sum_exp(logits);
                                 const double loss =
                                     total - static_cast<double>(logits[static_cast<std::size_t>(token)]);
                                 const std::span<const float> original = reference.log_p(i++);
                                 const auto best = std::max_element(logits.begin(), logits.end()) - logits.begin();
                                 const auto was = std::max_element(original.begin(), original.end()) - original.begin();
                                 double kl = 0;
                                 for (std::size_t t = 0; t < original.size(); ++t) {
                                   if (original[t] > -25)  // what is less likely adds nothing
                                     kl +=
                                         std::exp(static_cast<double>(original[t])) *
                                         (static_cast<double>(original[t]) - (static_cast<double>(logits[t]) - total));
                                 }
                                 out.row_loss[row] += loss;
                                 out.row_tokens[row] += 1;
                                 out.loss += loss;
                                 out.kl += kl;
                                 out.accuracy += best == token ? 1 : 0;
                                 out.same_choice += best == was ? 1 : 0;
                               }));
  const auto n = static_cast<double>(std::max<std::size_t>(1, i));
  for (std::size_t r = 0; r < out.row_loss.size(); ++r) {
    if (out.row_tokens[r] > 0) out.row_loss[r] /= out.row_tokens[r];
  }
  out.loss /= n;
  out.kl /= n;
  out.accuracy /= n;
  out.same_choice /= n;
  return out;
}

Result<FormatSpeed> measure_speed(const std::filesystem::path& gguf, int prompt_tokens, int answer_tokens, int threads,
                                  const CancelToken& cancel) {
  using Clock = std::chrono::steady_clock;
  TAILOR_TRY(const auto model, LoadedModel::load(gguf, {}));
  TAILOR_TRY(const LlamaContextPtr context,
             make_context(*model, static_cast<std::size_t>(prompt_tokens + answer_tokens), threads));
  const auto token = [&](int i) { return (i * 37 + 11) % model->vocabulary(); };
  std::vector<double> prompt, answer;
  for (int round = 0; round < 4; ++round) {  // the first one warms up
    llama_memory_clear(llama_get_memory(context.get()), false);
    const Clock::time_point begin = Clock::now();
    for (int first = 0; first < prompt_tokens; first += 512) {
      DecodeBatch batch;
      for (int i = first; i < std::min(prompt_tokens, first + 512); ++i)
        batch.add(token(i), i, {0, 1}, i + 1 == prompt_tokens);
      TAILOR_CHECK(batch.decode(context.get(), model->name()));
    }
    const Clock::time_point middle = Clock::now();
    for (int i = 0; i < answer_tokens; ++i) {
      if (cancel.cancelled()) return Error{ErrorCode::kCancelled, "measuring was interrupted", ""};
      DecodeBatch batch;
      batch.add(token(i), prompt_tokens + i, {0, 1}, true);
      TAILOR_CHECK(batch.decode(context.get(), model->name()));
    }
    const Clock::time_point end = Clock::now();
    if (round == 0) continue;
    prompt.push_back(prompt_tokens / std::chrono::duration<double>(middle - begin).count());
    answer.push_back(answer_tokens / std::chrono::duration<double>(end - middle).count());
  }
  const auto median = [](std::vector<double>& values) {
    std::sort(values.begin(), values.end());
    return values[values.size() / 2];
  };
  return FormatSpeed{median(prompt), median(answer)};
}

}  // namespace tailor
