#pragma once
/// Texts to vectors with a GGUF model: a BERT-family encoder (pooled as its file says) or the last hidden layer of a
/// decoder.

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/cancel.h"
#include "core/matrix.h"
#include "core/progress.h"
#include "core/result.h"

namespace tailor {

class Tokenizer;

enum class Pooling : std::uint8_t {
  kModel,  // as the file says; where it says nothing: mean for encoders, last token for decoders
  kMean,   // mean over all tokens of a text, special tokens included
  kCls,    // first token; encoders only
  kLast,   // last token
  kNone,   // token_states() alone, no vector of a text; encoders only
};

struct EmbedderOptions {
  int threads = 0;  // >= 1; 0: all cores. Each computes batches of its own
  Pooling pooling = Pooling::kModel;
  bool normalise = true;              // divide by the Euclidean length
  int max_tokens = 0;                 // longer texts are cut; 0: the model's own limit, at most 512
  std::filesystem::path adapter;      // GGUF LoRA adapter; empty: none
  std::filesystem::path bottlenecks;  // bottleneck adapters of a BERT (core/bottleneck_file.h); empty: none
  bool pairs = false;                 // texts are pairs (model/tokenizer.h, kPairSeparator); BERT encoders only
  int batch_tokens = 128;             // tokens a call; llama.cpp attends over the whole call, larger ones waste work
  bool own_encoder = true;      // BERT without an adapter: our own f32 encoder, faster and nearer to the reference
  bool flash_attention = true;  // of llama.cpp; skips the products of tokens of different texts
};

/// What Pooling::kModel stands for in this file.
Result<Pooling> model_pooling(const std::filesystem::path& gguf);

/// What one call of embed() met.
struct EmbedStats {
  std::size_t truncated = 0;  // texts longer than max_tokens
  std::size_t tokens = 0;     // computed
};

/// Threads: embed() runs on `threads` threads of its own; one call at a time an object.
class Embedder {
 public:
  static Result<Embedder> load(const std::filesystem::path& gguf, const EmbedderOptions& options = {});
  Embedder(Embedder&&) noexcept;
  Embedder& operator=(Embedder&&) noexcept;
  ~Embedder();

  /// [texts, dim], rows in the order of `texts`. Texts are computed in order of length, so a row depends on its
  /// neighbours only by rounding (below 1e-5 with f32 and f16 weights). An empty text has a vector as well.
  /// kCancelled when `cancel` is set; `progress` counts texts and is called from a working thread, one call at a time.
  Result<Matrix> embed(std::span<const std::string> texts, const ProgressFn& progress, const CancelToken& cancel,
                       EmbedStats* stats = nullptr);

  /// Rows that are tokens already (special ones included): calls `store(row, states)` for each with the last hidden
  /// states of its tokens, [tokens, dim], never normalised; from working threads, several at a time. Encoders only. Of
  /// pairs the second text begins after the first separator.
  Status token_states(std::span<const std::vector<std::int32_t>> rows,
                      const std::function<void(std::size_t, std::span<const float>)>& store, const ProgressFn& progress,
                      const CancelToken& cancel);
  const Tokenizer& tokenizer() const;

  int dim() const;
  int max_tokens() const;
  bool is_encoder() const;

 private:
  struct Impl;
  explicit Embedder(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace tailor
