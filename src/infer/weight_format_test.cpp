#include "infer/weight_format.h"

#include <gtest/gtest.h>

#include "infer/generator.h"
#include "infer/test_models.h"
#include "model/requantize.h"

namespace tailor {
namespace {

const CancelToken kNever;

std::vector<ScoredRow> some_rows() {
  std::vector<ScoredRow> rows;
  Rng rng(3);
  for (int r = 0; r < 3; ++r) {
    ScoredRow row;
    for (int i = 0; i < 90 + 40 * r; ++i) {
      row.tokens.push_back(static_cast<std::int32_t>(20 + rng.below(40000)));
      row.mask.push_back(i > 10 && i % 3 != 0 ? 1 : 0);
    }
    rows.push_back(std::move(row));
  }
  return rows;
}

TEST(WeightFormat, TheOriginalDiffersFromItselfByNothing) {
  const ReferencePredictions reference =
      ReferencePredictions::make(testing::tiny_llama(), some_rows(), 1, kNever).value();
  const FormatQuality same = measure_quality(testing::tiny_llama(), reference, 1, kNever).value();
  EXPECT_EQ(same.same_choice, 1);
  EXPECT_NEAR(same.kl, 0, 1e-6);
  // Losses are the generator's.
  Generator generator =
      Generator::load(testing::tiny_llama(), {.threads = 1, .f32_cache = true, .flash_attention = false}).value();
  double total = 0, count = 0;
  for (std::size_t r = 0; r < reference.rows().size(); ++r) {
    const ScoredRow& row = reference.rows()[r];
    double sum = 0;
    const auto losses = generator.losses(row.tokens, row.mask, kNever).value();
    for (const double loss : losses) sum += loss;
    EXPECT_NEAR(same.row_loss[r], sum / static_cast<double>(losses.size()), 5e-3);
    EXPECT_EQ(same.row_tokens[r], static_cast<double>(losses.size()));
    total += sum;
    count += static_cast<double>(losses.size());
  }
  EXPECT_EQ(reference.counted(), static_cast<std::size_t>(count));
  EXPECT_NEAR(same.loss, total / count, 5e-3);
}

TEST(WeightFormat, CoarseWeightsMovePredictions) {
  TemporaryDirectory dir("formats");
  requantize(testing::tiny_llama(), dir.path() / "q8.gguf", QuantType::kQ8_0, 1).value();
  requantize(testing::tiny_llama(), dir.path() / "q4.gguf", QuantType::kQ4_0, 1).value();
  const ReferencePredictions reference =
      ReferencePredictions::make(testing::tiny_llama(), some_rows(), 1, kNever).value();
  const FormatQuality q8 = measure_quality(dir.path() / "q8.gguf", reference, 1, kNever).value();
  const FormatQuality q4 = measure_quality(dir.path() / "q4.gguf", reference, 1, kNever).value();
  EXPECT_GT(q8.kl, 0);
  EXPECT_GT(q4.kl, 3 * q8.kl);
  EXPECT_LT(q4.same_choice, 1);
  const FormatSpeed speed = measure_speed(dir.path() / "q4.gguf", 600, 4, 1, kNever).value();
  EXPECT_GT(speed.prompt_tokens_per_second, 0);
  EXPECT_GT(speed.answer_tokens_per_second, 0);
}

}  // namespace
}  // namespace tailor
