#include <fmt/format.h>
#include <ggml-backend.h>
#include <llama.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "infer/embed_backend.h"
#include "infer/llama_context.h"

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

class LlamaBackend final : public EmbedBackend {
 public:
  static Result<std::unique_ptr<EmbedBackend>> make(const EmbedModel& model, const EmbedderOptions& options,
                                                    int threads);
  const Tokenizer& tokenizer() const override { return model_->tokenizer(); }
  bool is_encoder() const override { return encoder_; }
  int dim() const override { return llama_model_n_embd(model_->get()); }
  int max_texts() const override { return max_texts_; }
  Status embed(int worker, std::span<const TokenText> texts,
               const std::function<void(std::size_t, std::span<const float>)>& store) override;
  Status states(int worker, std::span<const TokenText> texts,
                const std::function<void(std::size_t, std::span<const float>)>& store) override;

 private:
  std::shared_ptr<const LoadedModel> model_;
  bool encoder_ = false;
  Pooling pooling_ = Pooling::kMean;
  int max_texts_ = 1;
  std::vector<Worker> workers_;
};

Result<std::unique_ptr<EmbedBackend>> LlamaBackend::make(const EmbedModel& model, const EmbedderOptions& options,
                                                         int threads) {
  auto backend = std::make_unique<LlamaBackend>();
  TAILOR_TRY(backend->model_, LoadedModel::load(model.file, options.adapter));
  backend->encoder_ = model.encoder;
  backend->pooling_ = model.pooling;
  const auto tokens = static_cast<std::uint32_t>(std::max(options.batch_tokens, model.max_tokens));
  backend->max_texts_ = static_cast<int>(std::min(tokens, static_cast<std::uint32_t>(kMaxSequences)));
  for (int i = 0; i < threads; ++i) {
    Worker worker;
    llama_context_params params = llama_context_default_params();
    params.n_ctx = params.n_batch = params.n_ubatch = tokens;
    params.n_seq_max = static_cast<std::uint32_t>(backend->max_texts_);  // llama.cpp reserves an output each
    params.kv_unified = true;
    params.n_threads = params.n_threads_batch = 1;
    params.type_k = params.type_v = GGML_TYPE_F32;
    params.flash_attn_type = options.flash_attention ? LLAMA_FLASH_ATTN_TYPE_ENABLED : LLAMA_FLASH_ATTN_TYPE_DISABLED;
    params.no_perf = true;
    if (backend->encoder_) {
      params.embeddings = true;
      params.pooling_type = model.pooling == Pooling::kNone   ? LLAMA_POOLING_TYPE_NONE
                            : model.pooling == Pooling::kMean ? LLAMA_POOLING_TYPE_MEAN
                            : model.pooling == Pooling::kCls  ? LLAMA_POOLING_TYPE_CLS
                                                              : LLAMA_POOLING_TYPE_LAST;
    } else {
      params.pooling_type = LLAMA_POOLING_TYPE_NONE;
      worker.hidden = std::make_unique<HiddenStates>();
      params.cb_eval = HiddenStates::on_tensor;
      params.cb_eval_user_data = worker.hidden.get();
    }
    TAILOR_TRY(worker.context, backend->model_->make_context(params));
    backend->workers_.push_back(std::move(worker));
  }
  return std::unique_ptr<EmbedBackend>(std::move(backend));
}

Status LlamaBackend::embed(int worker_index, std::span<const TokenText> texts,
                           const std::function<void(std::size_t, std::span<const float>)>& store) {
  Worker& worker = workers_[static_cast<std::size_t>(worker_index)];
  DecodeBatch& batch = worker.batch;
  batch.clear();
  const bool all = encoder_ || pooling_ == Pooling::kMean;
  for (std::size_t t = 0; t < texts.size(); ++t) {
    const auto id = static_cast<std::int32_t>(t);
    for (std::size_t p = 0; p < texts[t].size(); ++p) {
      batch.add(texts[t][p], static_cast<std::int32_t>(p), {id, id + 1}, all || p + 1 == texts[t].size());
    }
  }
  llama_context* context = worker.context.get();
  if (!encoder_) {
    llama_memory_clear(llama_get_memory(context), false);
    worker.hidden->seen = false;
  }
  TAILOR_CHECK(batch.decode(context, model_->name()));

  const auto width = static_cast<std::size_t>(dim());
  if (encoder_) {
    for (std::size_t t = 0; t < texts.size(); ++t) {
      const float* vector = llama_get_embeddings_seq(context, static_cast<std::int32_t>(t));
      if (vector == nullptr)
        return Error{ErrorCode::kInternal, fmt::format("{}: no embedding came back", model_->name()), ""};
      store(t, {vector, width});
    }
    return {};
  }
  if (!worker.hidden->seen || worker.hidden->rows.size() != static_cast<std::size_t>(batch.outputs()) * width) {
    return Error{ErrorCode::kUnavailable,
                 fmt::format("{}: this architecture's hidden states cannot be read", model_->name()),
                 "use another model for embeddings"};
  }
  const float* next = worker.hidden->rows.data();
  std::vector<float> mean(width);
  for (std::size_t t = 0; t < texts.size(); ++t) {
    if (!all) {
      store(t, {next, width});
      next += width;
      continue;
    }
    std::fill(mean.begin(), mean.end(), 0.0f);
    for (std::size_t p = 0; p < texts[t].size(); ++p, next += width) {
      for (std::size_t i = 0; i < width; ++i) mean[i] += next[i];
    }
    for (float& v : mean) v /= static_cast<float>(texts[t].size());
    store(t, mean);
  }
  return {};
}

Status LlamaBackend::states(int worker_index, std::span<const TokenText> texts,
                            const std::function<void(std::size_t, std::span<const float>)>& store) {
  if (pooling_ != Pooling::kNone || !encoder_)
    return Error{ErrorCode::kInternal, fmt::format("{}: its context keeps no states of tokens", model_->name()), ""};
  Worker& worker = workers_[static_cast<std::size_t>(worker_index)];
  DecodeBatch& batch = worker.batch;
  batch.clear();
  for (std::size_t t = 0; t < texts.size(); ++t) {
    const auto id = static_cast<std::int32_t>(t);
    for (std::size_t p = 0; p < texts[t].size(); ++p)
      batch.add(texts[t][p], static_cast<std::int32_t>(p), {id, id + 1}, true);
  }
  TAILOR_CHECK(batch.decode(worker.context.get(), model_->name()));
  const auto width = static_cast<std::size_t>(dim());
  std::vector<float> rows;
  std::int32_t next = 0;
  for (std::size_t t = 0; t < texts.size(); ++t) {
    rows.clear();
    for (std::size_t p = 0; p < texts[t].size(); ++p) {
      const float* state = llama_get_embeddings_ith(worker.context.get(), next++);
      if (state == nullptr)
        return Error{ErrorCode::kInternal, fmt::format("{}: no state of a token came back", model_->name()), ""};
      rows.insert(rows.end(), state, state + width);
    }
    store(t, rows);
  }
  return {};
}

}  // namespace

Result<std::unique_ptr<EmbedBackend>> make_llama_backend(const EmbedModel& model, const EmbedderOptions& options,
                                                         int threads) {
  return LlamaBackend::make(model, options, threads);
}

}  // namespace tailor
