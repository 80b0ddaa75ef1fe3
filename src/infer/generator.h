#pragma once
/// Text from a decoder, and what a text costs it (its loss), for callers that wait: what offline commands ask of
/// infer/engine.h. One answer with its words as they come, or many at once.
///
/// Many are computed together, up to 32 at a time, in one lane with all threads. What is computed beside what is a
/// function of the texts alone, whatever was asked before: the same call on the same machine gives the same answers.
/// They need not be those of each text alone: a token's logits depend in their last digits on what is computed beside
/// it, which quantized weights (whose products round their input to 8 bits) turn into as much as the quantisation is,
/// so that a likeliest token may be another one. What is compared should come from the same call with the same texts.

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

/// Keys and values take what runs needs: at most 2 GiB and an eighth of the memory, but for one text that needs more.
struct GeneratorOptions {
  int threads = 0;         // 0: all cores
  bool f32_cache = false;  // without flash attention, whatever that says: exact up to the rounding of 32-bit sums
  bool flash_attention = true;
  int max_context = 0;                // tokens of prompt and answer; 0: as the model was trained
  std::filesystem::path soft_prompt;  // virtual tokens before every prompt (infer/soft_prompt.h); empty: none
  TorchWorkerFiles worker;            // where it names bottlenecks, tailor-tune computes, one text at a time
};

struct GeneratedText {
  std::string text;  // valid UTF-8
  TokenList tokens;  // as sampled, the end included
  FinishReason finish = FinishReason::kStop;
  std::size_t prompt_tokens = 0, reused_tokens = 0;  // of the prompt; of these, not computed again
};

/// A text and which of its tokens count: mask[i] = 1, as long as tokens. The first token never counts.
struct ScoredText {
  std::span<const std::int32_t> tokens;
  std::span<const std::uint8_t> mask;
};

/// Whole characters as they come; false: stop here.
using TextSink = std::function<bool(std::string_view piece)>;
/// One of many is whole. They come in the order in which they end. An error ends all.
using AnswerSink = std::function<Status(std::size_t index, const GeneratedText& answer)>;
using DoneFn = std::function<void(std::size_t done)>;  // so many of them

/// The error, which tells the text where there are several: "text 3 of 8: …".
Error of_text(const Error& error, std::size_t index, std::size_t count);

/// Errors of all calls: cancelled (within one step); an empty prompt, one that fills the context, a token beyond the
/// vocabulary. Of many texts one error ends all and says which: of_text(). Sinks are called by the thread that called;
/// the next step is computed meanwhile. Threads: one call at a time an object.
class Generator {
 public:
  static Result<Generator> load(const std::filesystem::path& gguf, const GeneratorOptions& options = {});
  Generator(Generator&&) noexcept;
  Generator& operator=(Generator&&) noexcept;
  ~Generator();

  /// Goes on after `prompt`. What earlier prompts and this one have in common is not computed again (which may change
  /// last digits, too).
  Result<GeneratedText> generate(std::span<const std::int32_t> prompt, const SamplingOptions& options,
                                 const TextSink& sink, const CancelToken& cancel);
  /// Of each prompt, in order; each draws by the seed as if it were alone. `ended` may be empty.
  Result<std::vector<GeneratedText>> generate_all(std::span<const TokenList> prompts, const SamplingOptions& options,
                                                  const AnswerSink& ended, const CancelToken& cancel);

  /// -log p of every token that counts after those before it, in nats (to 7 digits), in order.
  Result<std::vector<double>> losses(std::span<const std::int32_t> tokens, std::span<const std::uint8_t> mask,
                                     const CancelToken& cancel);
  /// Of each text, in order. `done` may be empty.
  Result<std::vector<std::vector<double>>> losses_all(std::span<const ScoredText> texts, const DoneFn& done,
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
