// Answers and losses of many texts, one after the other and together (infer/generator.h).
// Run:   bench_generate_many MODEL.gguf [TEXTS=32] [PROMPT=100] [ANSWER=64] [THREADS=0]
// Prompts are random tokens. Prints one JSON line; tokens of answers, and of texts scored, each wall-clock second.

#include <algorithm>
#include <cstdio>
#include <cstdlib>

#include "core/json.h"
#include "core/rng.h"
#include "infer/generator.h"
#include "timing.h"

int main(int argc, char** argv) {
  using namespace tailor;
  if (argc < 2) return 2;
  const auto number = [&](int i, int usual) { return argc > i ? std::atoi(argv[i]) : usual; };
  const int texts = number(2, 32), prompt = number(3, 100), answer = number(4, 64);
  try {
    Generator generator = Generator::load(argv[1], {.threads = number(5, 0)}).value();
    const auto vocabulary = static_cast<std::uint64_t>(generator.vocabulary());
    const auto random_texts = [&](std::uint64_t seed, int length) {
      Rng rng(seed);
      std::vector<TokenList> out(static_cast<std::size_t>(texts));
      for (TokenList& tokens : out) {
        for (int i = 0; i < length; ++i) tokens.push_back(static_cast<std::int32_t>(20 + rng.below(vocabulary - 20)));
      }
      return out;
    };
    const CancelToken never;
    const SamplingOptions options{.max_tokens = answer, .ignore_end = true};
    (void)generator.generate(random_texts(1, prompt)[0], options, {}, never).value();  // warm-up
    const auto per_second = [&](int tokens_each, const auto& work) {
      const bench::Stopwatch watch;
      work();
      return static_cast<double>(texts) * tokens_each / watch.elapsed().wall;
    };
    const auto first = random_texts(2, prompt), second = random_texts(3, prompt);
    const double alone = per_second(answer, [&] {
      for (const TokenList& tokens : first) (void)generator.generate(tokens, options, {}, never).value();
    });
    const double together =
        per_second(answer, [&] { (void)generator.generate_all(second, options, {}, never).value(); });
    // The last `answer` tokens of texts that are as long as prompt and answer.
    const int length = prompt + answer;
    std::vector<std::uint8_t> mask(static_cast<std::size_t>(length), 0);
    std::fill(mask.begin() + prompt, mask.end(), std::uint8_t{1});
    const auto third = random_texts(4, length), fourth = random_texts(5, length);
    const double scored_alone = per_second(length, [&] {
      for (const TokenList& tokens : third) (void)generator.losses(tokens, mask, never).value();
    });
    std::vector<ScoredText> rows;
    for (const TokenList& tokens : fourth) rows.push_back({tokens, mask});
    const double scored_together = per_second(length, [&] { (void)generator.losses_all(rows, {}, never).value(); });
    std::printf("%s\n", dump_json({{"answer_tokens_per_second_alone", alone},
                                   {"answer_tokens_per_second_together", together},
                                   {"scored_tokens_per_second_alone", scored_alone},
                                   {"scored_tokens_per_second_together", scored_together}})
                            .c_str());
    return 0;
  } catch (const std::exception& e) {
    std::fprintf(stderr, "%s\n", e.what());
    return 1;
  }
}
