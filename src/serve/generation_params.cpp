#include "serve/generation_params.h"

#include <fmt/format.h>
#include <openssl/rand.h>

#include <charconv>
#include <cmath>

namespace tailor {
namespace {

constexpr int kMostTokens = 1 << 20;

void read_logit_bias(FieldReader& in, const ApiLimits& limits, int vocabulary, SamplingOptions& out) {
  const Json* bias = in.find("logit_bias");
  if (bias == nullptr) return;
  if (!bias->is_object()) return in.fail("logit_bias", "expected an object from token ids to numbers");
  if (bias->size() > limits.logit_bias)
    return in.fail("logit_bias", fmt::format("expected at most {} tokens", limits.logit_bias));
  for (const auto& [name, value] : bias->items()) {
    int token = -1;
    const auto [end, code] = std::from_chars(name.data(), name.data() + name.size(), token);
    if (code != std::errc() || end != name.data() + name.size() || token < 0 || token >= vocabulary)
      return in.fail("logit_bias",
                     fmt::format("'{}' is not one of the model's {} token ids", name.substr(0, 32), vocabulary));
    const double number = value.is_number() ? value.get<double>() : NAN;
    if (!(number >= -100 && number <= 100)) return in.fail("logit_bias", "expected numbers from -100 to 100");
    out.logit_bias.emplace_back(token, static_cast<float>(number));
  }
}

void read_stop_tokens(FieldReader& in, const ApiLimits& limits, int vocabulary, SamplingOptions& out) {
  const Json* tokens = in.find("stop_token_ids");
  if (tokens == nullptr) return;
  if (!tokens->is_array() || tokens->size() > limits.stop_texts * 8)
    return in.fail("stop_token_ids", "expected a short list of token ids");
  out.stop_tokens = in.token_ids("stop_token_ids", *tokens, vocabulary);
}

std::uint64_t random_seed() {
  std::uint64_t seed = 0;
  if (RAND_bytes(reinterpret_cast<unsigned char*>(&seed), sizeof seed) != 1)
    throw Exception({ErrorCode::kInternal, "no random numbers from the system", ""});
  return seed;
}

}  // namespace

GenerationParams read_generation_params(FieldReader& in, const ApiLimits& limits, int vocabulary, int usual_tokens) {
  GenerationParams out;
  SamplingOptions& s = out.sampling;
  s.temperature = in.number("temperature", 1, 0, 2);
  s.top_p = in.number("top_p", 1, 0, 1);
  s.top_k = static_cast<int>(in.integer("top_k", 0, -1, kMostTokens));  // -1, as vLLM has it: all
  if (s.top_k < 0) s.top_k = 0;
  s.min_p = in.number("min_p", 0, 0, 1);
  s.presence_penalty = in.number("presence_penalty", 0, -2, 2);
  s.frequency_penalty = in.number("frequency_penalty", 0, -2, 2);
  s.repetition_penalty = in.number("repetition_penalty", in.number("repeat_penalty", 1, 0.01, 10), 0.01, 10);
  s.max_tokens = static_cast<int>(
      in.integer("max_completion_tokens", in.integer("max_tokens", usual_tokens, 0, kMostTokens), 0, kMostTokens));
  s.min_tokens = static_cast<int>(in.integer("min_tokens", 0, 0, kMostTokens));
  s.ignore_end = in.boolean("ignore_eos", false);
  s.keep_stop = in.boolean("include_stop_str_in_output", false);
  s.stop = in.texts("stop", limits.stop_texts, limits.stop_bytes);
  s.seed = in.has("seed") ? static_cast<std::uint64_t>(in.integer("seed", 0, INT64_MIN, INT64_MAX)) : random_seed();
  read_logit_bias(in, limits, vocabulary, s);
  read_stop_tokens(in, limits, vocabulary, s);
  out.choices = static_cast<int>(in.integer("n", 1, 1, limits.choices));
  out.stream = in.boolean("stream", false);
  if (const Json* options = in.find("stream_options")) {
    FieldReader inner(*options, in.path_of("stream_options"));
    out.include_usage = inner.boolean("include_usage", false);
    out.continuous_usage = inner.boolean("continuous_usage_stats", false);
    in.join(inner);
    if (!out.stream) in.fail("stream_options", "is for streams: set 'stream' to true");
  }
  out.repeatable = in.has("seed");
  out.invariant = in.boolean("batch_invariant", false);
  out.priority = -static_cast<int>(in.integer("priority", 0, -100, 100));  // as vLLM has it: lower is sooner
  out.cache_salt = in.text("cache_salt", "", 1024);
  if (s.min_tokens > s.max_tokens) in.fail("min_tokens", "is more than max_tokens");
  return out;
}

}  // namespace tailor
