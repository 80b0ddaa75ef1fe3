#pragma once
/// From a model's logits to the next token.
///
/// Order, as vLLM has it: logit bias, penalties, constraint, ends, temperature, min-p, top-k, top-p, draw. Top-p counts
/// what min-p and top-k have left (transformers has min-p last, which may leave more).
/// Random numbers are counted (core/rng.h): the same seed and logits give the same token, whatever else the machine
/// does meanwhile.

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "core/result.h"

namespace tailor {

struct SamplingOptions {
  int max_tokens = 256;    // of the answer; >= 1
  double temperature = 0;  // 0: always the likeliest token
  int top_k = 0;           // the k likeliest alone; 0: all
  double top_p = 1;        // the likeliest that hold this probability together
  double min_p = 0;        // none below this share of the likeliest one's probability
  std::uint64_t seed = 1;
  std::vector<std::string> stop;  // the answer ends before the first of these

  double repetition_penalty = 1;  // of tokens in prompt or answer: logit / or * (Keskar et al., 2019)
  double presence_penalty = 0, frequency_penalty = 0;      // OpenAI's: of tokens of the answer, once and for each time
  std::vector<std::pair<std::int32_t, float>> logit_bias;  // added; -100 and below: never
  std::vector<std::int32_t> stop_tokens;                   // end the answer as the model's own end does
  int min_tokens = 0;       // before these no end is chosen, where anything else may follow
  bool ignore_end = false;  // the model's end is chosen only where it is one of stop_tokens
  bool keep_stop = false;   // a stop text stays at the end of the answer
  int top_logprobs = -1;    // >= 0: log p of each token and of so many likeliest ones

  bool operator==(const SamplingOptions&) const = default;
};

/// What the text must follow. One object an answer; calls in turn: fill_mask(), accept() of the chosen token, …
class TokenConstraint {
 public:
  virtual ~TokenConstraint() = default;
  /// Bit i % 32 of bits[i / 32]: token i may come next.
  virtual Status fill_mask(std::span<std::uint32_t> bits) = 0;
  virtual Status accept(std::int32_t token) = 0;
};

/// log p of a token before bias, penalties, constraint and temperature, in nats.
struct TokenLogprob {
  std::int32_t token = -1;
  float logprob = 0;
};

struct SampledToken {
  std::int32_t token = -1;
  float logprob = 0;              // where SamplingOptions::top_logprobs >= 0
  std::vector<TokenLogprob> top;  // falling; of equal ones the smaller token first
};

/// log p of `token` and the `count` likeliest ones.
SampledToken read_logprobs(std::span<const float> logits, std::int32_t token, int count);

/// Draws the tokens of one answer. Threads: one at a time.
class Sampler {
 public:
  /// `choice` tells answers to the same request apart. `ends`: the tokens with which the model ends an answer.
  Sampler(const SamplingOptions& options, std::span<const std::int32_t> prompt, std::span<const std::int32_t> ends,
          int choice, std::unique_ptr<TokenConstraint> constraint);
  Sampler(Sampler&&) noexcept = default;
  Sampler& operator=(Sampler&&) noexcept = default;

  /// The next token. `logits` of the whole vocabulary; changed. Errors: nothing may follow (a constraint that the
  /// vocabulary cannot spell, a bias that forbids everything).
  Result<SampledToken> next(std::span<float> logits);

 private:
  void penalise(std::span<float> logits) const;
  Status constrain(std::span<float> logits);
  void forbid_ends(std::span<float> logits) const;
  std::int32_t draw(std::span<float> logits);

  SamplingOptions options_;
  std::vector<std::int32_t> ends_;     // the model's and the stop tokens
  std::vector<std::int32_t> ignored_;  // of these, what never ends the answer
  std::unordered_map<std::int32_t, int> in_prompt_, in_answer_;
  std::unique_ptr<TokenConstraint> constraint_;
  std::uint64_t stream_ = 0, drawn_ = 0;
  std::vector<std::uint32_t> mask_;
  std::vector<std::pair<float, std::int32_t>> candidates_;
};

}  // namespace tailor
