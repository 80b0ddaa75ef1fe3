#include "infer/generator.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "infer/label_scorer.h"
#include "infer/test_models.h"
#include "infer/test_reference.h"

namespace tailor {
namespace {

using testing::expect_error;
using testing::smollm_file;
using testing::tiny_llama;

const CancelToken kNever;
const GeneratorOptions kExact{.threads = 1, .f32_cache = true, .flash_attention = false};

TokenList some_tokens(std::size_t n, std::uint64_t seed = 4) {
  Rng rng(seed);
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
  // A new one each time: what is reused changes last digits, and this model's weights are quantized.
  const auto fresh = [] { return Generator::load(smollm_file(), {.threads = 2}).value(); };
  const TokenList prompt = fresh().tokenizer().encode(
      "<|im_start|>user\nRepeat: naïve café → 東京 🙂 end<|im_end|>\n<|im_start|>assistant\n", false, true);
  std::string streamed;
  const TextSink sink = [&](std::string_view piece) {
    EXPECT_TRUE(piece.empty() || (static_cast<unsigned char>(piece.front()) & 0xC0u) != 0x80u) << piece;
    streamed += piece;
    return true;
  };
  const GeneratedText whole = fresh().generate(prompt, {.max_tokens = 40}, sink, kNever).value();
  EXPECT_EQ(streamed, whole.text);
  ASSERT_GT(whole.text.size(), 6u) << whole.text;
  // Cut before a text that spans tokens.
  const std::string stop = whole.text.substr(3, 3);
  streamed.clear();
  const GeneratedText cut =
      fresh().generate(prompt, {.max_tokens = 40, .stop = {"not there", stop}}, sink, kNever).value();
  EXPECT_EQ(cut.text, whole.text.substr(0, whole.text.find(stop)));
  EXPECT_EQ(streamed, cut.text);
  EXPECT_EQ(cut.finish, FinishReason::kStop);
  // A sink that has enough.
  int pieces = 0;
  const GeneratedText short_one =
      fresh()
          .generate(
              prompt, {.max_tokens = 40}, [&](std::string_view) { return ++pieces < 2; }, kNever)
          .value();
  EXPECT_EQ(pieces, 2);
  EXPECT_LT(short_one.tokens.size(), whole.tokens.size());
}

std::vector<TokenList> some_prompts(std::size_t n) {
  std::vector<TokenList> prompts;
  for (std::size_t i = 0; i < n; ++i) prompts.push_back(some_tokens(5 + i * 37 % 120, i));
  return prompts;
}

TEST(Generator, ManyAnswerAsEachAloneAndInOrder) {
  Generator generator = Generator::load(tiny_llama(), kExact).value();
  testing::ReferenceDecoder reference(tiny_llama());
  const std::vector<TokenList> prompts = some_prompts(36);  // more than are computed at once
  std::vector<int> told(prompts.size());
  const AnswerSink ended = [&](std::size_t i, const GeneratedText& answer) -> Status {
    ++told[i];
    EXPECT_EQ(answer.prompt_tokens, prompts[i].size());
    EXPECT_EQ(answer.tokens.size(), 9u);
    return {};
  };
  const auto answers = generator.generate_all(prompts, {.max_tokens = 9, .ignore_end = true}, ended, kNever).value();
  ASSERT_EQ(answers.size(), prompts.size());
  EXPECT_EQ(told, std::vector<int>(prompts.size(), 1));
  for (std::size_t i = 0; i < prompts.size(); ++i) {
    const auto expected = reference.answer(prompts[i], 9, true);
    EXPECT_EQ(answers[i].tokens, expected.tokens) << i;
    EXPECT_EQ(answers[i].text, expected.text) << i;
    EXPECT_EQ(answers[i].finish, FinishReason::kLength);
  }
  EXPECT_TRUE(generator.generate_all({}, {}, ended, kNever).value().empty());
}

TEST(Generator, ManyDrawAsEachAlone) {
  Generator generator = Generator::load(tiny_llama(), kExact).value();
  const std::vector<TokenList> prompts(3, some_tokens(20));
  const SamplingOptions options{.max_tokens = 12, .temperature = 2, .seed = 5};
  const TokenList alone = generator.generate(prompts[0], options, {}, kNever).value().tokens;
  for (const GeneratedText& answer : generator.generate_all(prompts, options, {}, kNever).value())
    EXPECT_EQ(answer.tokens, alone);
}

/// Quantized weights and drawn tokens, so that a last digit would show.
TEST(Generator, TheSameCallsGiveTheSameAnswers) {
  const std::vector<TokenList> prompts = some_prompts(8);
  std::vector<ScoredText> texts;
  const std::vector<std::uint8_t> mask(400, 1);
  for (const TokenList& prompt : prompts) texts.push_back({prompt, std::span(mask).first(prompt.size())});
  const auto once = [&](Generator& generator) {
    std::vector<TokenList> tokens;
    const SamplingOptions options{.max_tokens = 10, .temperature = 3};
    for (const GeneratedText& answer : generator.generate_all(prompts, options, {}, kNever).value())
      tokens.push_back(answer.tokens);
    return std::pair(tokens, generator.losses_all(texts, {}, kNever).value());
  };
  Generator generator = Generator::load(smollm_file(), {.threads = 2}).value();
  const auto first = once(generator);
  generator.generate(some_tokens(1100), {.max_tokens = 3}, {}, kNever).value();  // the cache grows, and holds this
  generator.generate(prompts[3], {.max_tokens = 3}, {}, kNever).value();
  const auto again = once(generator);
  EXPECT_EQ(again, first) << "whatever came before";
  Generator other = Generator::load(smollm_file(), {.threads = 2}).value();
  EXPECT_EQ(once(other), first);
}

TEST(Generator, ManyStopAtTheirStopTexts) {
  Generator generator = Generator::load(tiny_llama(), kExact).value();
  const std::vector<TokenList> prompts = some_prompts(6);
  const SamplingOptions plain{.max_tokens = 20, .ignore_end = true};
  const auto whole = generator.generate_all(prompts, plain, {}, kNever).value();
  SamplingOptions stopped = plain;
  stopped.stop = {whole[2].text.substr(4, 4)};
  const auto cut = generator.generate_all(prompts, stopped, {}, kNever).value();
  EXPECT_EQ(cut[2].text, whole[2].text.substr(0, whole[2].text.find(stopped.stop[0])));
  EXPECT_EQ(cut[2].finish, FinishReason::kStop);
  stopped.keep_stop = true;
  EXPECT_EQ(generator.generate_all(prompts, stopped, {}, kNever).value()[2].text, cut[2].text + stopped.stop[0]);
}

TEST(Generator, ASoftPromptStandsBeforeAllOfThem) {
  TemporaryDirectory dir("generator");
  const std::filesystem::path file = dir.path() / "soft.safetensors";
  testing::write_soft_prompt(file);
  GeneratorOptions options = kExact;
  options.soft_prompt = file;
  Generator generator = Generator::load(tiny_llama(), options).value();
  EXPECT_EQ(generator.max_context(), 2048 - 7);
  testing::ReferenceDecoder reference(tiny_llama(), file);
  const std::vector<TokenList> prompts = some_prompts(5);
  const auto answers = generator.generate_all(prompts, {.max_tokens = 6}, {}, kNever).value();
  for (std::size_t i = 0; i < prompts.size(); ++i)
    EXPECT_EQ(answers[i].tokens, reference.answer(prompts[i], 6).tokens) << i;
  const TokenList text = some_tokens(60);
  const std::vector<double> losses = generator.losses(text, std::vector<std::uint8_t>(text.size(), 1), kNever).value();
  const std::vector<double> expected = reference.losses(text);
  ASSERT_EQ(losses.size(), expected.size());
  for (std::size_t i = 0; i < losses.size(); ++i) EXPECT_NEAR(losses[i], expected[i], 1e-4) << i;
}

TEST(Generator, LossesOfManyAreThoseOfEach) {
  Generator generator = Generator::load(tiny_llama(), kExact).value();
  testing::ReferenceDecoder reference(tiny_llama());
  const TokenList common = some_tokens(100);
  std::vector<TokenList> tokens;
  std::vector<std::vector<std::uint8_t>> masks;
  for (std::uint64_t i = 0; i < 36; ++i) {
    tokens.push_back(common);
    const TokenList own = some_tokens(40 + 5 * i, i);
    tokens.back().insert(tokens.back().end(), own.begin(), own.end());
    masks.emplace_back(tokens.back().size(), 0);
    for (std::size_t t = 104 + i; t < masks.back().size(); ++t) masks.back()[t] = t % 5 != 0 ? 1 : 0;
  }
  masks[7].assign(masks[7].size(), 0);  // nothing counts
  std::vector<ScoredText> texts;
  for (std::size_t i = 0; i < tokens.size(); ++i) texts.push_back({tokens[i], masks[i]});
  std::vector<std::size_t> steps;
  const auto losses = generator
                          .losses_all(
                              texts, [&](std::size_t done) { steps.push_back(done); }, kNever)
                          .value();
  ASSERT_EQ(losses.size(), texts.size());
  EXPECT_TRUE(losses[7].empty());
  ASSERT_FALSE(steps.empty());
  EXPECT_TRUE(std::is_sorted(steps.begin(), steps.end()));
  EXPECT_EQ(steps.back(), texts.size());
  for (std::size_t i = 0; i < texts.size(); i += 17) {
    const std::vector<double> all = reference.losses(tokens[i]);
    std::vector<double> expected;
    for (std::size_t t = 1; t < tokens[i].size(); ++t) {
      if (masks[i][t] != 0) expected.push_back(all[t - 1]);
    }
    ASSERT_EQ(losses[i].size(), expected.size());
    for (std::size_t k = 0; k < expected.size(); ++k) EXPECT_NEAR(losses[i][k], expected[k], 1e-4) << i << " " << k;
  }
}

TEST(Generator, CancellingEndsManyAndTheNextCallWorks) {
  Generator generator = Generator::load(tiny_llama(), kExact).value();
  const std::vector<TokenList> prompts = some_prompts(50);
  SamplingOptions options{.max_tokens = 1500, .ignore_end = true};
  CancelToken cancel;
  std::string streamed;
  const TextSink sink = [&](std::string_view piece) {
    streamed += piece;
    if (streamed.size() > 20) cancel.cancel();
    return true;
  };
  expect_error(generator.generate(prompts[0], options, sink, cancel), ErrorCode::kCancelled, "interrupted");
  // Of many: when the first one is whole.
  CancelToken second;
  std::size_t whole = 0;
  const AnswerSink ended = [&](std::size_t, const GeneratedText&) -> Status {
    ++whole;
    second.cancel();
    return {};
  };
  options.max_tokens = 30;
  expect_error(generator.generate_all(prompts, options, ended, second), ErrorCode::kCancelled, "interrupted");
  EXPECT_GE(whole, 1u);
  EXPECT_LT(whole, prompts.size());
  // A sink's error ends them too.
  const AnswerSink full = [](std::size_t, const GeneratedText&) -> Status {
    return Error{ErrorCode::kIo, "the disk is full", ""};
  };
  expect_error(generator.generate_all(prompts, options, full, kNever), ErrorCode::kIo, "the disk is full");
  testing::ReferenceDecoder reference(tiny_llama());
  EXPECT_EQ(generator.generate(prompts[3], {.max_tokens = 5}, {}, kNever).value().tokens,
            reference.answer(prompts[3], 5).tokens);
}

TEST(Generator, OneBadTextOfManyIsNamed) {
  Generator generator = Generator::load(tiny_llama(), {.threads = 1, .max_context = 320}).value();
  std::vector<TokenList> prompts = some_prompts(5);
  prompts[3] = some_tokens(320);
  int answered = 0;
  const AnswerSink ended = [&](std::size_t, const GeneratedText&) -> Status {
    ++answered;
    return {};
  };
  expect_error(generator.generate_all(prompts, {.max_tokens = 3}, ended, kNever), ErrorCode::kInvalidArgument,
               "text 4 of 5: the prompt has 320 tokens");
  EXPECT_EQ(answered, 0);
  prompts[3].pop_back();  // one token has room
  EXPECT_EQ(generator.generate_all(prompts, {.max_tokens = 3}, ended, kNever).value()[3].tokens.size(), 1u);
  prompts[1] = {};
  expect_error(generator.generate_all(prompts, {}, {}, kNever), ErrorCode::kInvalidArgument,
               "text 2 of 5: there is nothing to go on from");
  const TokenList fits = some_tokens(320), longer = some_tokens(321);
  const std::vector<std::uint8_t> mask(321, 1);
  const std::vector<ScoredText> texts{{fits, std::span(mask).first(320)}, {longer, mask}};
  EXPECT_EQ(generator.losses_all({texts.data(), 1}, {}, kNever).value()[0].size(), 319u);
  expect_error(generator.losses_all(texts, {}, kNever), ErrorCode::kInvalidArgument,
               "text 2 of 2: the text has 321 tokens; the model reads 320");
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
