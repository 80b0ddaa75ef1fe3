#include "infer/generator.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "infer/label_scorer.h"
#include "infer/test_models.h"

namespace tailor {
namespace {

using testing::expect_error;
using testing::smollm_file;
using testing::tiny_llama;

const CancelToken kNever;
const GeneratorOptions kExact{.threads = 1, .f32_cache = true, .flash_attention = false};

TokenList some_tokens(std::size_t n) {
  Rng rng(4);
  TokenList tokens(n);
  for (std::int32_t& t : tokens) t = static_cast<std::int32_t>(20 + rng.below(40000));
  return tokens;
}

TEST(Generator, TakesTheLikeliestTokenEveryTime) {
  Generator generator = Generator::load(tiny_llama(), kExact).value();
  LabelScorer scorer =
      LabelScorer::load(tiny_llama(), {.threads = 1, .f32_cache = true, .flash_attention = false}).value();
  TokenList text = some_tokens(9);
  const GeneratedText out = generator.generate(text, {.max_tokens = 8}, {}, kNever).value();
  ASSERT_EQ(out.tokens.size(), 8u);
  EXPECT_EQ(out.finish, FinishReason::kLength);
  for (const std::int32_t token : out.tokens) {
    const std::vector<float> logits = scorer.next_token_logits(text).value();
    EXPECT_EQ(token, std::max_element(logits.begin(), logits.end()) - logits.begin());
    text.push_back(token);
  }
}

TEST(Generator, LossesAreThoseOfThePieces) {
  Generator generator = Generator::load(tiny_llama(), kExact).value();
  LabelScorer scorer =
      LabelScorer::load(tiny_llama(), {.threads = 1, .f32_cache = true, .flash_attention = false}).value();
  const TokenList tokens = some_tokens(150);
  std::vector<std::uint8_t> mask(tokens.size(), 0);
  std::fill(mask.begin() + 20, mask.begin() + 120, std::uint8_t{1});  // over two slices
  mask[0] = mask[60] = 0;                                             // the first token is never learnt
  mask[140] = 1;
  const std::vector<double> losses = generator.losses(tokens, mask, kNever).value();
  ASSERT_EQ(losses.size(), 100u);
  std::size_t at = 0;
  for (std::size_t i = 1; i < tokens.size(); ++i) {
    if (mask[i] == 0) continue;
    const double loss = losses[at++];
    if (i % 19 != 1 && i != 140) continue;  // some of them one at a time
    scorer.set_labels({{tokens[i]}}).value();
    const TokenList before(tokens.begin(), tokens.begin() + static_cast<std::ptrdiff_t>(i));
    EXPECT_NEAR(loss, -scorer.score_one_at_a_time(before).value()[0], 1e-4) << i;
  }
  EXPECT_TRUE(generator.losses(tokens, std::vector<std::uint8_t>(tokens.size(), 0), kNever).value().empty());
}

TEST(Generator, KeepsWhatPromptsHaveInCommon) {
  Generator generator = Generator::load(tiny_llama(), kExact).value();
  TokenList first = some_tokens(700), second = first;  // more than one call
  second[650] = 77;
  const TokenList alone =
      Generator::load(tiny_llama(), kExact).value().generate(second, {.max_tokens = 5}, {}, kNever).value().tokens;
  EXPECT_EQ(generator.generate(first, {.max_tokens = 5}, {}, kNever).value().reused_tokens, 0u);
  const GeneratedText again = generator.generate(second, {.max_tokens = 5}, {}, kNever).value();
  EXPECT_EQ(again.reused_tokens, 650u);
  EXPECT_EQ(again.tokens, alone);
  // A shorter prompt that the last one began with.
  const TokenList third(second.begin(), second.begin() + 30);
  EXPECT_EQ(
      generator.generate(third, {.max_tokens = 5}, {}, kNever).value().tokens,
      Generator::load(tiny_llama(), kExact).value().generate(third, {.max_tokens = 5}, {}, kNever).value().tokens);
}

TEST(Generator, DrawsBySeed) {
  Generator generator = Generator::load(tiny_llama(), kExact).value();
  const TokenList prompt = some_tokens(5);
  const auto draw = [&](std::uint64_t seed) {
    return generator
        .generate(prompt,
                  {.max_tokens = 12, .temperature = 2, .top_k = 50, .top_p = 0.99, .min_p = 0.001, .seed = seed}, {},
                  kNever)
        .value()
        .tokens;
  };
  EXPECT_EQ(draw(1), draw(1));
  EXPECT_NE(draw(1), draw(2));
}

TEST(Generator, StreamsWholeCharactersAndStops) {
  Generator generator = Generator::load(smollm_file(), {.threads = 2}).value();
  const TokenList prompt = generator.tokenizer().encode(
      "<|im_start|>user\nRepeat: naïve café → 東京 🙂 end<|im_end|>\n<|im_start|>assistant\n", false, true);
  std::string streamed;
  const TextSink sink = [&](std::string_view piece) {
    EXPECT_TRUE(piece.empty() || (static_cast<unsigned char>(piece.front()) & 0xC0u) != 0x80u) << piece;
    streamed += piece;
    return true;
  };
  const GeneratedText whole = generator.generate(prompt, {.max_tokens = 40}, sink, kNever).value();
  EXPECT_EQ(streamed, whole.text);
  ASSERT_GT(whole.text.size(), 6u) << whole.text;
  // Cut before a text that spans tokens.
  const std::string stop = whole.text.substr(3, 3);
  streamed.clear();
  const GeneratedText cut =
      generator.generate(prompt, {.max_tokens = 40, .stop = {"not there", stop}}, sink, kNever).value();
  EXPECT_EQ(cut.text, whole.text.substr(0, whole.text.find(stop)));
  EXPECT_EQ(streamed, cut.text);
  EXPECT_EQ(cut.finish, FinishReason::kStop);
  // A sink that has enough.
  int pieces = 0;
  const GeneratedText short_one =
      generator
          .generate(
              prompt, {.max_tokens = 40}, [&](std::string_view) { return ++pieces < 2; }, kNever)
          .value();
  EXPECT_EQ(pieces, 2);
  EXPECT_LT(short_one.tokens.size(), whole.tokens.size());
}

TEST(Generator, Failures) {
  Generator generator = Generator::load(tiny_llama(), {.threads = 1, .max_context = 32}).value();
  expect_error(generator.generate({}, {}, {}, kNever), ErrorCode::kInvalidArgument, "the prompt is empty");
  expect_error(generator.generate(some_tokens(32), {}, {}, kNever), ErrorCode::kInvalidArgument, "the model reads 32");
  expect_error(generator.generate(TokenList{1, 1 << 20}, {}, {}, kNever), ErrorCode::kInvalidArgument, "is not one of");
  EXPECT_EQ(generator.generate(some_tokens(30), {.max_tokens = 100}, {}, kNever).value().tokens.size(), 2u);
  CancelToken cancelled;
  cancelled.cancel();
  expect_error(generator.generate(some_tokens(3), {}, {}, cancelled), ErrorCode::kCancelled, "interrupted");
  expect_error(Generator::load(testing::minilm_gguf(ImportType::kF16)), ErrorCode::kUnavailable, "decoder-only");
}

}  // namespace
}  // namespace tailor
