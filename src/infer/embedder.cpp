#include "infer/embedder.h"

#include <fmt/format.h>
#include <ggml-backend.h>
#include <llama.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <mutex>
#include <numeric>
#include <vector>

#include "core/system.h"
#include "infer/llama_context.h"
#include "infer/parallel.h"

namespace tailor {
namespace {

/// A decoder's hidden states, taken from the graph before its output matrix: llama.cpp has no public way to leave that
/// (a fifth of a small model's work) out.
struct HiddenStates {
  std::vector<float> rows;  // one a marked token
  bool seen = false;

  static bool wants(const ggml_tensor* tensor) { return std::strcmp(tensor->name, "result_norm") == 0; }
  static bool on_tensor(ggml_tensor* tensor, bool ask, void* self) {
    if (!wants(tensor)) return !ask;
    if (ask) return true;
    auto* states = static_cast<HiddenStates*>(self);
    states->rows.resize(ggml_nbytes(tensor) / sizeof(float));
    ggml_backend_tensor_get(tensor, states->rows.data(), 0, ggml_nbytes(tensor));
    states->seen = true;
    return false;  // the rest of the graph is not computed
  }
};

struct Worker {
  LlamaContextPtr context;
  std::unique_ptr<HiddenStates> hidden;  // decoders
  DecodeBatch batch;
};

}  // namespace

struct Embedder::Impl {
  std::shared_ptr<const LoadedModel> model;
  EmbedderOptions options;
  bool encoder = false;
  int dim = 0;
  int max_tokens = 0;
  std::vector<Worker> workers;

  std::vector<std::int32_t> tokenize(std::string_view text, bool& truncated) const;
  Status embed_batch(Worker& worker, std::span<const std::vector<std::int32_t>> tokens,
                     std::span<const std::size_t> rows, Matrix& out) const;
  void store(std::span<float> row, std::span<const float> vector) const;
};

Embedder::Embedder(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Embedder::Embedder(Embedder&&) noexcept = default;
Embedder& Embedder::operator=(Embedder&&) noexcept = default;
Embedder::~Embedder() = default;
int Embedder::dim() const {
  return impl_->dim;
}
int Embedder::max_tokens() const {
  return impl_->max_tokens;
}
bool Embedder::is_encoder() const {
  return impl_->encoder;
}

Result<Embedder> Embedder::load(const std::filesystem::path& gguf, const EmbedderOptions& options) {
  if (options.threads < 0 || options.max_tokens < 0 || options.batch_tokens < 1) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("embedding options are out of range: threads {}, max_tokens {}, batch_tokens {}",
                             options.threads, options.max_tokens, options.batch_tokens),
                 "threads and max_tokens are 0 or more, batch_tokens 1 or more"};
  }
  auto impl = std::make_unique<Impl>();
  impl->options = options;
  TAILOR_TRY(impl->model, LoadedModel::load(gguf, options.adapter));
  const llama_model* model = impl->model->get();
  const std::string architecture = impl->model->metadata("general.architecture");
  impl->encoder = impl->model->is_encoder();
  impl->dim = llama_model_n_embd(model);

  const std::string limit = impl->model->metadata("tailor.max_sequence_length");
  int model_limit = std::min(llama_model_n_ctx_train(model), 512);
  if (!limit.empty()) model_limit = std::min(llama_model_n_ctx_train(model), std::max(2, std::atoi(limit.c_str())));
  impl->max_tokens =
      options.max_tokens == 0 ? model_limit : std::min(options.max_tokens, llama_model_n_ctx_train(model));
  impl->max_tokens = std::max(impl->max_tokens, 2);

  Pooling& pooling = impl->options.pooling;
  if (pooling == Pooling::kModel) {
    const std::string type = impl->model->metadata(architecture + ".pooling_type");
    pooling = type == "1"     ? Pooling::kMean
              : type == "2"   ? Pooling::kCls
              : type == "3"   ? Pooling::kLast
              : impl->encoder ? Pooling::kMean
                              : Pooling::kLast;
  }
  if (!impl->encoder && pooling == Pooling::kCls) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("{}: the first token of a decoder has seen nothing, so CLS pooling makes no sense",
                             impl->model->name()),
                 "use mean or last-token pooling"};
  }

  const int threads = options.threads > 0 ? options.threads : system_info().cores;
  const auto tokens = static_cast<std::uint32_t>(std::max(options.batch_tokens, impl->max_tokens));
  for (int i = 0; i < threads; ++i) {
    Worker worker;
    llama_context_params params = llama_context_default_params();
    params.n_ctx = params.n_batch = params.n_ubatch = tokens;
    params.n_seq_max =
        std::min(tokens, static_cast<std::uint32_t>(kMaxSequences));  // llama.cpp reserves an output each
    params.kv_unified = true;
    params.n_threads = params.n_threads_batch = 1;
    params.type_k = params.type_v = GGML_TYPE_F32;
    params.flash_attn_type = options.flash_attention ? LLAMA_FLASH_ATTN_TYPE_ENABLED : LLAMA_FLASH_ATTN_TYPE_DISABLED;
    params.no_perf = true;
    if (impl->encoder) {
      params.embeddings = true;
      params.pooling_type = pooling == Pooling::kMean  ? LLAMA_POOLING_TYPE_MEAN
                            : pooling == Pooling::kCls ? LLAMA_POOLING_TYPE_CLS
                                                       : LLAMA_POOLING_TYPE_LAST;
    } else {
      params.pooling_type = LLAMA_POOLING_TYPE_NONE;
      worker.hidden = std::make_unique<HiddenStates>();
      params.cb_eval = HiddenStates::on_tensor;
      params.cb_eval_user_data = worker.hidden.get();
    }
    TAILOR_TRY(worker.context, impl->model->make_context(params));
    impl->workers.push_back(std::move(worker));
  }
  return Embedder(std::move(impl));
}

std::vector<std::int32_t> Embedder::Impl::tokenize(std::string_view text, bool& truncated) const {
  const Tokenizer& tokenizer = model->tokenizer();
  std::vector<std::int32_t> tokens =
      tokenizer.encode_truncated(text, static_cast<std::size_t>(max_tokens), true, &truncated);
  // Models that put nothing around a text: something must be computed for an empty one.
  if (tokens.empty()) tokens.push_back(std::max({tokenizer.bos(), tokenizer.eos(), 0}));
  return tokens;
}

void Embedder::Impl::store(std::span<float> row, std::span<const float> vector) const {
  double square = 0;
  for (const float v : vector) square += static_cast<double>(v) * v;
  const float scale = options.normalise && square > 0 ? static_cast<float>(1.0 / std::sqrt(square)) : 1.0f;
  for (std::size_t i = 0; i < row.size(); ++i) row[i] = vector[i] * scale;
}

Status Embedder::Impl::embed_batch(Worker& worker, std::span<const std::vector<std::int32_t>> tokens,
                                   std::span<const std::size_t> rows, Matrix& out) const {
  DecodeBatch& batch = worker.batch;
  batch.clear();
  const bool all = encoder || options.pooling == Pooling::kMean;
  for (std::size_t s = 0; s < rows.size(); ++s) {
    const std::vector<std::int32_t>& text = tokens[rows[s]];
    const auto id = static_cast<std::int32_t>(s);
    for (std::size_t p = 0; p < text.size(); ++p) {
      batch.add(text[p], static_cast<std::int32_t>(p), {id, id + 1}, all || p + 1 == text.size());
    }
  }
  llama_context* context = worker.context.get();
  if (!encoder) {
    llama_memory_clear(llama_get_memory(context), false);
    worker.hidden->seen = false;
  }
  TAILOR_CHECK(batch.decode(context, model->name()));

  const auto width = static_cast<std::size_t>(dim);
  if (encoder) {
    for (std::size_t s = 0; s < rows.size(); ++s) {
      const float* vector = llama_get_embeddings_seq(context, static_cast<std::int32_t>(s));
      if (vector == nullptr)
        return Error{ErrorCode::kInternal, fmt::format("{}: no embedding came back", model->name()), ""};
      store(out.row(rows[s]), {vector, width});
    }
    return {};
  }
  if (!worker.hidden->seen || worker.hidden->rows.size() != static_cast<std::size_t>(batch.outputs()) * width) {
    return Error{ErrorCode::kUnavailable,
                 fmt::format("{}: this architecture's hidden states cannot be read", model->name()),
                 "use another model for embeddings"};
  }
  const float* next = worker.hidden->rows.data();
  std::vector<float> mean(width);
  for (const std::size_t row : rows) {
    if (!all) {
      store(out.row(row), {next, width});
      next += width;
      continue;
    }
    std::fill(mean.begin(), mean.end(), 0.0f);
    for (std::size_t p = 0; p < tokens[row].size(); ++p, next += width) {
      for (std::size_t i = 0; i < width; ++i) mean[i] += next[i];
    }
    for (float& v : mean) v /= static_cast<float>(tokens[row].size());
    store(out.row(row), mean);
  }
  return {};
}

Result<Matrix> Embedder::embed(std::span<const std::string> texts, const ProgressFn& progress,
                               const CancelToken& cancel, EmbedStats* stats) {
  Impl& self = *impl_;
  const std::size_t n = texts.size();
  Matrix out(n, static_cast<std::size_t>(self.dim));
  if (stats != nullptr) *stats = {};
  if (n == 0) return out;
  const int threads = static_cast<int>(std::min(self.workers.size(), n));
  const Error cancelled{ErrorCode::kCancelled, "embedding was interrupted", ""};

  std::vector<std::vector<std::int32_t>> tokens(n);
  std::atomic<std::size_t> next_text{0}, truncated{0};
  const auto tokenize_some = [&](int) -> Status {
    constexpr std::size_t kChunk = 64;
    for (std::size_t first; (first = next_text.fetch_add(kChunk)) < n;) {
      if (cancel.cancelled()) return cancelled;
      for (std::size_t i = first; i < std::min(n, first + kChunk); ++i) {
        bool cut = false;
        tokens[i] = self.tokenize(texts[i], cut);
        truncated += cut ? 1 : 0;
      }
    }
    return {};
  };
  TAILOR_CHECK(run_workers(threads, tokenize_some));

  // Longest first: the last batches are the short ones, so that workers end together. Ties by content, so that the
  // batches, and with them the rounding, do not depend on the caller's order.
  std::vector<std::size_t> order(n);
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    if (tokens[a].size() != tokens[b].size()) return tokens[a].size() > tokens[b].size();
    return tokens[a] < tokens[b];
  });
  std::vector<std::size_t> starts;
  const auto max_texts = std::min<std::size_t>(
      kMaxSequences, static_cast<std::size_t>(std::max(self.options.batch_tokens, self.max_tokens)));
  std::size_t in_batch = 0, total_tokens = 0;
  for (std::size_t i = 0; i < n; ++i) {
    const std::size_t length = tokens[order[i]].size();
    if (starts.empty() || in_batch + length > static_cast<std::size_t>(self.options.batch_tokens) ||
        i - starts.back() >= max_texts) {
      starts.push_back(i);
      in_batch = 0;
    }
    in_batch += length;
    total_tokens += length;
  }
  starts.push_back(n);

  std::atomic<std::size_t> next_batch{0};
  std::mutex reporting;
  std::size_t done = 0;
  const auto embed_some = [&](int w) -> Status {
    for (std::size_t b; (b = next_batch.fetch_add(1)) + 1 < starts.size();) {
      if (cancel.cancelled()) return cancelled;
      const std::span<const std::size_t> rows(order.data() + starts[b], starts[b + 1] - starts[b]);
      TAILOR_CHECK(self.embed_batch(self.workers[static_cast<std::size_t>(w)], tokens, rows, out));
      if (!progress) continue;
      const std::lock_guard lock(reporting);
      done += rows.size();
      progress({.stage = "embedding texts", .done = static_cast<double>(done), .total = static_cast<double>(n)});
    }
    return {};
  };
  TAILOR_CHECK(run_workers(threads, embed_some));
  if (stats != nullptr) *stats = {.truncated = truncated.load(), .tokens = total_tokens};
  return out;
}

}  // namespace tailor
