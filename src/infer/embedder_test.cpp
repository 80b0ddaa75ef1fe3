#include "infer/embedder.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "infer/test_models.h"

namespace tailor {
namespace {

using testing::expect_error;
using testing::minilm_gguf;
using testing::tiny_llama;

const CancelToken kNever;

double cosine(std::span<const float> a, std::span<const float> b) {
  double ab = 0, aa = 0, bb = 0;
  for (std::size_t i = 0; i < a.size(); ++i) ab += a[i] * b[i], aa += a[i] * a[i], bb += b[i] * b[i];
  return ab / std::sqrt(aa * bb);
}

float largest_difference(std::span<const float> a, std::span<const float> b) {
  float d = 0;
  for (std::size_t i = 0; i < a.size(); ++i) d = std::max(d, std::abs(a[i] - b[i]));
  return d;
}

std::vector<std::string> some_texts() {
  std::vector<std::string> texts;
  for (int i = 0; i < 40; ++i) {
    std::string text = "I would like to view flat number " + std::to_string(i);
    for (int k = 0; k < i % 9; ++k) text += " and also the house beside it, if it is still free";
    texts.push_back(text);
  }
  texts.push_back("");
  texts.push_back("Übergröße – 日本語 🙂");
  return texts;
}

TEST(Embedder, RowsFollowTheCallersOrder) {
  for (const std::filesystem::path& model : {minilm_gguf(ImportType::kF16), tiny_llama()}) {
    Embedder embedder = Embedder::load(model, {.threads = 2}).value();
    std::vector<std::string> texts = some_texts();
    const Matrix forward = embedder.embed(texts, {}, kNever).value();
    ASSERT_EQ(forward.rows, texts.size());
    ASSERT_EQ(forward.cols, static_cast<std::size_t>(embedder.dim()));
    std::reverse(texts.begin(), texts.end());
    const Matrix backward = embedder.embed(texts, {}, kNever).value();
    for (std::size_t i = 0; i < texts.size(); ++i) {
      EXPECT_LT(largest_difference(forward.row(i), backward.row(texts.size() - 1 - i)), 1e-5f) << "text " << i;
      EXPECT_NEAR(cosine(forward.row(i), forward.row(i)), 1.0, 1e-6);
      const Matrix alone = embedder.embed(std::span(texts).subspan(texts.size() - 1 - i, 1), {}, kNever).value();
      EXPECT_LT(largest_difference(forward.row(i), alone.row(0)), 1e-3f) << "text " << i;
    }
  }
}

TEST(Embedder, PoolingOfADecoder) {
  Embedder last = Embedder::load(tiny_llama(), {.threads = 1, .normalise = false}).value();
  EXPECT_FALSE(last.is_encoder());
  Embedder mean = Embedder::load(tiny_llama(), {.threads = 1, .pooling = Pooling::kMean, .normalise = false}).value();
  // Causal: the mean over "a b" is the mean of the last tokens of "a" and "a b".
  const std::vector<std::string> texts{"the", "the house"};  // one token a word
  const Matrix l = last.embed(texts, {}, kNever).value();
  const Matrix m = mean.embed(texts, {}, kNever).value();
  EXPECT_GT(largest_difference(l.row(1), m.row(1)), 0.01f);
  for (std::size_t i = 0; i < m.cols; ++i) EXPECT_NEAR(m.row(1)[i], (l.row(0)[i] + l.row(1)[i]) / 2, 1e-4f);
}

TEST(Embedder, LongTextsAreCut) {
  Embedder embedder = Embedder::load(minilm_gguf(ImportType::kF16), {.threads = 1, .max_tokens = 16}).value();
  EXPECT_EQ(embedder.max_tokens(), 16);
  std::string text = "word";
  for (int i = 0; i < 200; ++i) text += " word";
  EmbedStats stats;
  const Matrix rows =
      embedder.embed(std::vector<std::string>{"short", text, text + " more"}, {}, kNever, &stats).value();
  EXPECT_EQ(stats.truncated, 2u);
  EXPECT_EQ(stats.tokens, 3u + 16u + 16u);
  EXPECT_LT(largest_difference(rows.row(1), rows.row(2)), 1e-6f);
  const std::string huge(10'000'000, 'x');
  EXPECT_EQ(embedder.embed(std::vector<std::string>{huge}, {}, kNever, &stats).value().rows, 1u);
}

TEST(Embedder, OwnEncoderEqualsLlama) {
  const std::filesystem::path model = minilm_gguf(ImportType::kF32);
  for (const Pooling pooling : {Pooling::kMean, Pooling::kCls, Pooling::kLast}) {
    Embedder own = Embedder::load(model, {.threads = 1, .pooling = pooling}).value();
    Embedder llama =
        Embedder::load(model, {.threads = 1, .pooling = pooling, .own_encoder = false, .flash_attention = false})
            .value();
    const std::vector<std::string> texts = some_texts();
    const Matrix a = own.embed(texts, {}, kNever).value();
    const Matrix b = llama.embed(texts, {}, kNever).value();
    for (std::size_t i = 0; i < texts.size(); ++i) EXPECT_GT(cosine(a.row(i), b.row(i)), 0.9999) << texts[i];
  }
}

TEST(Embedder, ReportsAndStops) {
  Embedder embedder = Embedder::load(tiny_llama(), {.threads = 2}).value();
  const std::vector<std::string> texts = some_texts();
  double done = 0;
  const ProgressFn progress = [&](const Progress& p) {
    EXPECT_GE(p.done, done);
    EXPECT_EQ(p.total, static_cast<double>(texts.size()));
    done = p.done;
  };
  (void)embedder.embed(texts, progress, kNever).value();
  EXPECT_EQ(done, static_cast<double>(texts.size()));
  CancelToken cancelled;
  cancelled.cancel();
  expect_error(embedder.embed(texts, {}, cancelled), ErrorCode::kCancelled, "interrupted");
  EXPECT_EQ(embedder.embed({}, {}, kNever).value().rows, 0u);
}

TEST(Embedder, Failures) {
  expect_error(Embedder::load("no-such.gguf"), ErrorCode::kNotFound, "no-such.gguf");
  expect_error(Embedder::load(tiny_llama(), {.batch_tokens = 0}), ErrorCode::kInvalidArgument, "batch_tokens 0");
  expect_error(Embedder::load(tiny_llama(), {.pooling = Pooling::kCls}), ErrorCode::kInvalidArgument, "CLS");
}

}  // namespace
}  // namespace tailor
