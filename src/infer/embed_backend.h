#pragma once
/// What computes an Embedder's vectors. Internal to this module.

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <string>

#include "core/result.h"
#include "infer/embedder.h"
#include "model/tokenizer.h"

namespace tailor {

using TokenText = std::span<const std::int32_t>;

class EmbedBackend {
 public:
  virtual ~EmbedBackend() = default;
  virtual const Tokenizer& tokenizer() const = 0;
  virtual bool is_encoder() const = 0;
  virtual int dim() const = 0;
  virtual int max_texts() const = 0;  // a call
  /// Calls `store(i, vector)` for each text; `worker` < threads has buffers of its own. Texts are not empty.
  virtual Status embed(int worker, std::span<const TokenText> texts,
                       const std::function<void(std::size_t, std::span<const float>)>& store) = 0;
  /// The same with the last hidden states of all tokens of a text, [tokens, dim]; encoders only.
  virtual Status states(int worker, std::span<const TokenText> texts,
                        const std::function<void(std::size_t, std::span<const float>)>& store) = 0;
};

/// What the file says of itself.
struct EmbedModel {
  std::filesystem::path file;
  bool encoder = false;
  Pooling pooling = Pooling::kMean;  // never kModel
  int max_tokens = 0;
  bool pairs = false;
};

/// With llama.cpp: any architecture, adapters.
Result<std::unique_ptr<EmbedBackend>> make_llama_backend(const EmbedModel& model, const EmbedderOptions& options,
                                                         int threads);
/// With BertEncoder; `bottlenecks` may be empty.
Result<std::unique_ptr<EmbedBackend>> make_bert_backend(const EmbedModel& model,
                                                        const std::filesystem::path& bottlenecks, int threads);

}  // namespace tailor
