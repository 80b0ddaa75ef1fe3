#include "infer/embedder.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <mutex>
#include <numeric>
#include <vector>

#include "core/system.h"
#include "infer/bert_encoder.h"
#include "infer/embed_backend.h"
#include "infer/parallel.h"
#include "model/gguf_file.h"

namespace tailor {
namespace {

/// Pooling and limits from the file's metadata.
Result<EmbedModel> describe(const GgufFile& file, const EmbedderOptions& options) {
  EmbedModel model{.file = file.path()};
  TAILOR_TRY(const std::string architecture, file.architecture());
  const GgufValue* causal = file.find(architecture + ".attention.causal");
  model.encoder = causal != nullptr && !causal->as_bool().value_or(true);

  TAILOR_TRY(const std::int64_t trained, file.integer(architecture + ".context_length"));
  const GgufValue* recommended = file.find("tailor.max_sequence_length");
  std::int64_t limit = options.max_tokens;
  if (limit == 0) limit = recommended != nullptr ? recommended->as_integer().value_or(512) : 512;
  model.max_tokens = static_cast<int>(std::max<std::int64_t>(2, std::min(limit, trained)));

  model.pooling = options.pooling;
  if (model.pooling == Pooling::kModel) {
    const GgufValue* stored = file.find(architecture + ".pooling_type");
    const std::int64_t type = stored != nullptr ? stored->as_integer().value_or(0) : 0;  // llama.cpp's numbers
    model.pooling = type == 1       ? Pooling::kMean
                    : type == 2     ? Pooling::kCls
                    : type == 3     ? Pooling::kLast
                    : model.encoder ? Pooling::kMean
                                    : Pooling::kLast;
  }
  if (!model.encoder && model.pooling == Pooling::kCls) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("{}: the first token of a decoder has seen nothing, so CLS pooling makes no sense",
                             file.path().string()),
                 "use mean or last-token pooling"};
  }
  return model;
}

}  // namespace

Result<Pooling> model_pooling(const std::filesystem::path& gguf) {
  TAILOR_TRY(const GgufFile file, GgufFile::open(gguf));
  TAILOR_TRY(const EmbedModel model, describe(file, {}));
  return model.pooling;
}

using RowStore = std::function<void(std::size_t, std::span<const float>)>;

static Error cancelled() {
  return {ErrorCode::kCancelled, "embedding was interrupted", ""};
}

struct Embedder::Impl {
  std::unique_ptr<EmbedBackend> backend;
  int threads = 1;
  int max_tokens = 0;
  int batch_tokens = 0;
  bool normalise = true;
  bool pairs = false;

  std::vector<std::int32_t> tokenize(std::string_view text, bool& truncated) const;
  void store(std::span<float> row, std::span<const float> vector) const;
  Status run(std::span<const std::vector<std::int32_t>> tokens, bool states, const RowStore& store,
             const ProgressFn& progress, const CancelToken& cancel);
};

Embedder::Embedder(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Embedder::Embedder(Embedder&&) noexcept = default;
Embedder& Embedder::operator=(Embedder&&) noexcept = default;
Embedder::~Embedder() = default;
int Embedder::dim() const {
  return impl_->backend->dim();
}
int Embedder::max_tokens() const {
  return impl_->max_tokens;
}
bool Embedder::is_encoder() const {
  return impl_->backend->is_encoder();
}

Result<Embedder> Embedder::load(const std::filesystem::path& gguf, const EmbedderOptions& options) {
  if (options.threads < 0 || options.max_tokens < 0 || options.batch_tokens < 1) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("embedding options are out of range: threads {}, max_tokens {}, batch_tokens {}",
                             options.threads, options.max_tokens, options.batch_tokens),
                 "threads and max_tokens are 0 or more, batch_tokens 1 or more"};
  }
  EmbedModel model;
  bool own = false;
  {
    TAILOR_TRY(const GgufFile file, GgufFile::open(gguf));
    TAILOR_TRY(model, describe(file, options));
    own = options.own_encoder && options.adapter.empty() && BertEncoder::supports(file);
  }
  if (!own && !options.bottlenecks.empty()) {
    return Error{ErrorCode::kUnavailable,
                 gguf.string() + ": bottleneck adapters are served on BERT and ModernBERT encoders alone",
                 "tune this model with another method"};
  }
  if (!own && options.pairs) {
    return Error{ErrorCode::kUnavailable,
                 gguf.string() + ": pairs of texts are served on BERT and ModernBERT encoders alone",
                 "give both texts as one, with --template"};
  }
  model.pairs = options.pairs;
  auto impl = std::make_unique<Impl>();
  impl->pairs = options.pairs;
  impl->threads = options.threads > 0 ? options.threads : system_info().cores;
  impl->max_tokens = model.max_tokens;
  impl->batch_tokens = options.batch_tokens;
  impl->normalise = options.normalise;
  if (own) {
    TAILOR_TRY(impl->backend, make_bert_backend(model, options.bottlenecks, impl->threads));
  } else {
    TAILOR_TRY(impl->backend, make_llama_backend(model, options, impl->threads));
  }
  return Embedder(std::move(impl));
}

std::vector<std::int32_t> Embedder::Impl::tokenize(std::string_view text, bool& truncated) const {
  const Tokenizer& tokenizer = backend->tokenizer();
  if (pairs) {
    PairTokens pair = tokenizer.encode_pair(text, static_cast<std::size_t>(max_tokens));
    truncated = pair.truncated;
    return std::move(pair.ids);
  }
  std::vector<std::int32_t> tokens =
      tokenizer.encode_truncated(text, static_cast<std::size_t>(max_tokens), true, &truncated);
  // Models that put nothing around a text: something must be computed for an empty one.
  if (tokens.empty()) tokens.push_back(std::max({tokenizer.bos(), tokenizer.eos(), 0}));
  return tokens;
}

void Embedder::Impl::store(std::span<float> row, std::span<const float> vector) const {
  double square = 0;
  for (const float v : vector) square += static_cast<double>(v) * v;
  const float scale = normalise && square > 0 ? static_cast<float>(1.0 / std::sqrt(square)) : 1.0f;
  for (std::size_t i = 0; i < row.size(); ++i) row[i] = vector[i] * scale;
}

/// Computes all rows in batches, longest first: the last batches are the short ones, so that workers end together. Ties
/// by content, so that the batches, and with them the rounding, do not depend on the caller's order.
Status Embedder::Impl::run(std::span<const std::vector<std::int32_t>> tokens, bool states, const RowStore& store,
                           const ProgressFn& progress, const CancelToken& cancel) {
  const std::size_t n = tokens.size();
  std::vector<std::size_t> order(n);
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    if (tokens[a].size() != tokens[b].size()) return tokens[a].size() > tokens[b].size();
    return tokens[a] < tokens[b];
  });
  // Few texts go to all workers in equal parts too.
  std::size_t total = 0;
  for (const std::vector<std::int32_t>& text : tokens) total += text.size();
  const auto most = static_cast<std::size_t>(batch_tokens), workers = static_cast<std::size_t>(threads);
  const std::size_t rounds = (total + workers * most - 1) / (workers * most);
  const std::size_t share = (total + rounds * workers - 1) / std::max<std::size_t>(1, rounds * workers);
  std::vector<std::size_t> starts;
  const auto max_texts = static_cast<std::size_t>(backend->max_texts());
  std::size_t in_batch = 0;
  for (std::size_t i = 0; i < n; ++i) {
    const std::size_t length = tokens[order[i]].size();
    if (starts.empty() || in_batch + length > most || in_batch + length / 2 > share || i - starts.back() >= max_texts) {
      starts.push_back(i);
      in_batch = 0;
    }
    in_batch += length;
  }
  starts.push_back(n);

  std::atomic<std::size_t> next_batch{0};
  std::mutex reporting;
  std::size_t done = 0;
  const auto embed_some = [&](int w) -> Status {
    for (std::size_t b; (b = next_batch.fetch_add(1)) + 1 < starts.size();) {
      if (cancel.cancelled()) return cancelled();
      const std::span<const std::size_t> rows(order.data() + starts[b], starts[b + 1] - starts[b]);
      std::vector<TokenText> batch;
      for (const std::size_t row : rows) batch.emplace_back(tokens[row]);
      const auto keep = [&](std::size_t i, std::span<const float> values) { store(rows[i], values); };
      TAILOR_CHECK(states ? backend->states(w, batch, keep) : backend->embed(w, batch, keep));
      if (!progress) continue;
      const std::lock_guard lock(reporting);
      done += rows.size();
      progress({.stage = "embedding texts", .done = static_cast<double>(done), .total = static_cast<double>(n)});
    }
    return {};
  };
  return run_workers(static_cast<int>(std::min(static_cast<std::size_t>(threads), n)), embed_some);
}

Result<Matrix> Embedder::embed(std::span<const std::string> texts, const ProgressFn& progress,
                               const CancelToken& cancel, EmbedStats* stats) {
  Impl& self = *impl_;
  const std::size_t n = texts.size();
  Matrix out(n, static_cast<std::size_t>(dim()));
  if (stats != nullptr) *stats = {};
  if (n == 0) return out;
  const int threads = static_cast<int>(std::min(static_cast<std::size_t>(self.threads), n));

  std::vector<std::vector<std::int32_t>> tokens(n);
  std::atomic<std::size_t> next_text{0}, truncated{0};
  const auto tokenize_some = [&](int) -> Status {
    constexpr std::size_t kChunk = 64;
    for (std::size_t first; (first = next_text.fetch_add(kChunk)) < n;) {
      if (cancel.cancelled()) return cancelled();
      for (std::size_t i = first; i < std::min(n, first + kChunk); ++i) {
        bool cut = false;
        tokens[i] = self.tokenize(texts[i], cut);
        truncated += cut ? 1 : 0;
      }
    }
    return {};
  };
  TAILOR_CHECK(run_workers(threads, tokenize_some));

  TAILOR_CHECK(self.run(
      tokens, /*states=*/false,
      [&](std::size_t row, std::span<const float> vector) { self.store(out.row(row), vector); }, progress, cancel));
  if (stats != nullptr) {
    stats->truncated = truncated.load();
    for (const auto& row : tokens) stats->tokens += row.size();
  }
  return out;
}

Status Embedder::token_states(std::span<const std::vector<std::int32_t>> rows, const RowStore& store,
                              const ProgressFn& progress, const CancelToken& cancel) {
  if (!is_encoder()) {
    return Error{ErrorCode::kUnavailable, "states of tokens are there of encoders alone, this model is a decoder", ""};
  }
  for (const auto& row : rows) {
    if (!row.empty() && row.size() <= static_cast<std::size_t>(max_tokens())) continue;
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("a row has {} tokens, the encoder reads 1 to {}", row.size(), max_tokens()), ""};
  }
  if (rows.empty()) return {};
  return impl_->run(rows, /*states=*/true, store, progress, cancel);
}

const Tokenizer& Embedder::tokenizer() const {
  return impl_->backend->tokenizer();
}

}  // namespace tailor
