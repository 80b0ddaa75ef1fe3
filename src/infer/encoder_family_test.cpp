/// Embeddings of a tiny DistilBERT and a tiny RoBERTa against transformers (tests/golden/encoder_family_golden.py).

#include <gtest/gtest.h>

#include <cmath>

#include "core/files.h"
#include "core/json.h"
#include "infer/embedder.h"
#include "model/import.h"
#include "model/test_encoder_family.h"

namespace tailor {
namespace {

double cosine(std::span<const float> a, std::span<const float> b) {
  double ab = 0, aa = 0, bb = 0;
  for (std::size_t i = 0; i < a.size(); ++i) ab += a[i] * b[i], aa += a[i] * a[i], bb += b[i] * b[i];
  return ab / std::sqrt(aa * bb);
}

class EncoderFamilyParity : public ::testing::TestWithParam<const char*> {};

TEST_P(EncoderFamilyParity, EmbedsAsTransformers) {
  const testing::TinyEncoder model(GetParam());
  const TemporaryDirectory dir("encoder-family"), out("encoder-family-out");
  model.write(dir.path());
  import_hugging_face(dir.path(), out.path() / "m.gguf").value();
  const Json golden = read_json(testing::golden("tokenizer_golden.json")).value();
  const Json& vectors = model.reference()["vectors"];
  std::vector<std::string> texts;
  for (std::size_t i = 0; i < vectors.size(); ++i) texts.push_back(golden["texts"][i].get<std::string>());
  for (const bool own : {true, false}) {
    Embedder embedder =
        Embedder::load(out.path() / "m.gguf",
                       {.threads = 1, .pooling = Pooling::kMean, .own_encoder = own, .flash_attention = false})
            .value();
    EXPECT_EQ(embedder.max_tokens(), 48);
    EmbedStats stats;
    const Matrix rows = embedder.embed(texts, {}, CancelToken(), &stats).value();
    EXPECT_GT(stats.truncated, 0u);  // the limit of the positions is tested too
    for (std::size_t i = 0; i < texts.size(); ++i) {
      const auto expected = vectors[i].get<std::vector<float>>();
      EXPECT_GE(cosine(rows.row(i), expected), 0.9999) << (own ? "own: " : "llama.cpp: ") << texts[i];
      if (!own) continue;
      for (std::size_t k = 0; k < expected.size(); ++k) EXPECT_NEAR(rows.row(i)[k], expected[k], 2e-5f) << texts[i];
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Families, EncoderFamilyParity, ::testing::Values("distilbert", "roberta"));

}  // namespace
}  // namespace tailor
