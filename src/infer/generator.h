#pragma once
/// Text from a decoder, token by token, and what a text costs it (its loss).

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/cancel.h"
#include "core/result.h"
#include "infer/engine.h"
#include "infer/torch_worker.h"
#include "model/tokenizer.h"

namespace tailor {

struct GeneratorOptions {
  int threads = 0;  // 0: all cores
  bool f32_cache = false;
  bool flash_attention = true;
  int max_context = 0;                // tokens of prompt and answer; 0: as the model was trained
  std::filesystem::path soft_prompt;  // virtual tokens before every prompt (infer/soft_prompt.h); empty: none
  TorchWorkerFiles worker;            // where it names bottlenecks, tailor-tune computes instead of llama.cpp
};

struct GeneratedText {
  std::string text;  // valid UTF-8
  TokenList tokens;  // as sampled, the end included
  FinishReason finish = FinishReason::kStop;
  std::size_t prompt_tokens = 0, reused_tokens = 0;  // of the prompt; of these, not computed again
};

/// Whole characters as they come; false: stop here.
using TextSink = std::function<bool(std::string_view piece)>;

/// Threads: one call at a time an object.
class Generator {
 public:
  static Result<Generator> load(const std::filesystem::path& gguf, const GeneratorOptions& options = {});
  Generator(Generator&&) noexcept;
  Generator& operator=(Generator&&) noexcept;
  ~Generator();

  /// Goes on after `prompt`. What the last prompt and this one have in common is not computed again. Errors: an empty
  /// prompt, one that fills the context, a token beyond the vocabulary, cancelled.
  Result<GeneratedText> generate(std::span<const std::int32_t> prompt, const SamplingOptions& options,
                                 const TextSink& sink, const CancelToken& cancel);

  /// -log p of every token i > 0 with mask[i] = 1 after those before it, in nats, in order.
  Result<std::vector<double>> losses(std::span<const std::int32_t> tokens, std::span<const std::uint8_t> mask,
                                     const CancelToken& cancel);

  int max_context() const;  // a soft prompt not counted
  const Tokenizer& tokenizer() const;
  int vocabulary() const;

 private:
  struct Impl;
  explicit Generator(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace tailor
