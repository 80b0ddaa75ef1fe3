// Models whose rotary positions are scaled, as they are served: losses equal those of transformers, and so those that
// tailor-tune trains by (src/tune/decoder_family_test.cpp, the same models). tests/golden/decoder_family_golden.py.

#include <gtest/gtest.h>

#include <numeric>

#include "infer/generator.h"
#include "infer/label_scorer.h"
#include "model/import.h"
#include "model/test_decoder_family.h"

namespace tailor {
namespace {

using testing::expect_error;
using testing::TinyDecoder;

const CancelToken kNever;

class RotaryScaling : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    model_.write(dir_.path() / "m");
    import_hugging_face(dir_.path() / "m", gguf_, {.type = ImportType::kF32}).value();
  }
  static double mean_loss(Generator& generator, const TokenList& tokens) {
    const std::vector<std::uint8_t> all(tokens.size(), 1);
    const std::vector<double> losses = generator.losses(tokens, all, kNever).value();
    return std::accumulate(losses.begin(), losses.end(), 0.0) / static_cast<double>(losses.size());
  }
  TinyDecoder model_{GetParam()};
  TemporaryDirectory dir_{"rotary"};
  std::filesystem::path gguf_ = dir_.path() / "m.gguf";
};

TEST_P(RotaryScaling, LossesEqualTransformers) {
  Generator generator = Generator::load(gguf_, {.threads = 1, .f32_cache = true, .flash_attention = false}).value();
  const auto tokens = model_.reference["tokens"].get<TokenList>();
  const double expected = model_.reference["loss"].get<double>();
  EXPECT_NEAR(mean_loss(generator, tokens), expected, 1e-4);
  if (!model_.reference.contains("long")) return;
  // A text beyond the original context turns by the other factors, and what comes after it by its own again.
  const Json& text = model_.reference["long"];
  EXPECT_NEAR(mean_loss(generator, text["tokens"].get<TokenList>()), text["loss"].get<double>(), 1e-4);
  EXPECT_NEAR(mean_loss(generator, tokens), expected, 1e-4);
}

/// Many prompts in one context: short texts turn by the first factors however large it would be.
TEST_P(RotaryScaling, LabelsOfManyPromptsAreScoredAsOfOne) {
  LabelScorer scorer = LabelScorer::load(gguf_, {.threads = 1, .f32_cache = true, .flash_attention = false}).value();
  const auto tokens = model_.reference["tokens"].get<TokenList>();
  std::vector<TokenList> labels;
  for (std::int32_t first = 20; first < 60; ++first) labels.push_back({first, first + 40, 7});
  scorer.set_labels(labels).value();
  std::vector<TokenList> prompts;
  for (std::int32_t i = 0; i < 12; ++i) {
    prompts.push_back(tokens);
    prompts.back()[3] = 30 + i;
  }
  const auto together = scorer.score_all(prompts, {}, kNever).value();
  const auto best = scorer.best(prompts, {}, {}, kNever).value();
  for (std::size_t i = 0; i < prompts.size(); ++i) {
    const LabelScores alone = scorer.score_one_at_a_time(prompts[i]).value();
    for (std::size_t l = 0; l < labels.size(); ++l) EXPECT_NEAR(together[i][l], alone[l], 1e-4) << i << " " << l;
    EXPECT_NEAR(best[i].score, *std::max_element(alone.begin(), alone.end()), 1e-4);
  }
  if (!model_.reference.contains("long")) return;
  const std::vector<TokenList> beyond{model_.reference["long"]["tokens"].get<TokenList>()};
  expect_error(scorer.score_all(beyond, {}, kNever), ErrorCode::kInvalidArgument, "");
}

INSTANTIATE_TEST_SUITE_P(Scaled, RotaryScaling,
                         ::testing::Values("qwen3_variant", "llama_yarn", "llama_longrope", "phi3_variant",
                                           "llama_variant", "mistral"),
                         [](const auto& test) { return std::string(test.param); });

}  // namespace
}  // namespace tailor
