#pragma once
/// A decoder with bottleneck adapters, which llama.cpp cannot compute, answered by tailor-tune in a process of its own
/// (tune/answer_worker.h). It stands behind LabelScorer and Engine.

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <vector>

#include "core/cancel.h"
#include "core/companion.h"
#include "core/result.h"
#include "model/tokenizer.h"

namespace tailor {

/// What is needed to start one; an empty `bottlenecks`: llama.cpp answers.
struct TorchWorkerFiles {
  std::filesystem::path program;  // tailor-tune; empty: this build has none
  std::filesystem::path bottlenecks;
  bool empty() const { return bottlenecks.empty(); }
};

/// Threads: one call at a time.
class TorchWorker {
 public:
  /// Errors: no program, files that it refuses.
  static Result<std::unique_ptr<TorchWorker>> start(const std::filesystem::path& gguf, const TorchWorkerFiles& files,
                                                    int threads);

  /// log p of every answer after every prompt, [prompts][answers].
  Result<std::vector<std::vector<double>>> scores(std::span<const TokenList> prompts,
                                                  std::span<const TokenList> answers, const CancelToken& cancel);
  /// -log p of each learnt token, in nats.
  Result<std::vector<double>> losses(std::span<const std::int32_t> tokens, std::span<const std::uint8_t> mask,
                                     const CancelToken& cancel);
  /// Of the token after `tokens`.
  Result<std::vector<float>> logits(std::span<const std::int32_t> tokens, const CancelToken& cancel);

 private:
  explicit TorchWorker(std::unique_ptr<Companion> companion) : companion_(std::move(companion)) {}
  std::unique_ptr<Companion> companion_;
};

}  // namespace tailor
