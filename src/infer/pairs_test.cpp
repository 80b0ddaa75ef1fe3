/// Pairs of texts against transformers (tests/golden/pair_golden.py): ids, token types, truncation, vectors.

#include <gtest/gtest.h>

#include <algorithm>

#include "core/files.h"
#include "core/json.h"
#include "infer/embedder.h"
#include "model/import.h"
#include "model/test_encoder_family.h"
#include "model/tokenizer.h"

namespace tailor {
namespace {

class Pairs : public ::testing::TestWithParam<const char*> {
 protected:
  std::filesystem::path gguf() {
    const std::string family = GetParam();
    const auto out = dir_.path() / "m.gguf";
    if (family == "bert") {
      import_hugging_face(testing::minilm_dir(), out).value();
      return out;
    }
    const TemporaryDirectory model;
    testing::TinyEncoder(family).write(model.path());
    import_hugging_face(model.path(), out).value();
    return out;
  }
  std::string pair(std::size_t i) const {
    const Json& p = golden_["pairs"][i];
    return p[0].get<std::string>() + kPairSeparator + p[1].get<std::string>();
  }
  const Json golden_ = read_json(testing::golden("pairs.json")).value();
  const TemporaryDirectory dir_{"pairs"};
};

TEST_P(Pairs, AreEncodedAsByTransformers) {
  const Tokenizer tokenizer = Tokenizer::load(gguf()).value();
  const std::string family = GetParam();
  const bool two_types = family == "bert";
  EXPECT_EQ(tokenizer.token_types(), two_types ? 2 : 1);
  for (std::size_t l = 0; l < golden_["limits"].size(); ++l) {
    const auto limit = golden_["limits"][l].get<std::size_t>();
    for (std::size_t i = 0; i < golden_["pairs"].size(); ++i) {
      const Json& want = golden_[family][l][i];
      const PairTokens got = tokenizer.encode_pair(pair(i), limit);
      EXPECT_EQ(got.ids, want["ids"].get<std::vector<std::int32_t>>()) << pair(i) << " at " << limit;
      EXPECT_LE(got.ids.size(), limit);
      ASSERT_EQ(got.types.size(), got.ids.size());
      if (two_types) {
        EXPECT_EQ(got.types, want["types"].get<std::vector<std::uint8_t>>()) << pair(i);
      } else {
        EXPECT_EQ(std::count(got.types.begin(), got.types.end(), 0), static_cast<std::ptrdiff_t>(got.types.size()));
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Families, Pairs, ::testing::Values("bert", "distilbert", "roberta"));

using BertPairs = Pairs;

TEST_P(BertPairs, AreEmbeddedAsByTransformers) {
  const auto file = gguf();
  Embedder embedder =
      Embedder::load(file, {.threads = 1, .pooling = Pooling::kMean, .normalise = false, .pairs = true}).value();
  std::vector<std::string> texts;
  for (std::size_t i = 0; i < golden_["vectors"].size(); ++i) texts.push_back(pair(i));
  const Matrix rows = embedder.embed(texts, {}, CancelToken()).value();
  for (std::size_t i = 0; i < texts.size(); ++i) {
    const auto expected = golden_["vectors"][i].get<std::vector<float>>();
    for (std::size_t k = 0; k < expected.size(); ++k) ASSERT_NEAR(rows.row(i)[k], expected[k], 2e-5f) << texts[i];
  }
  const auto refused = Embedder::load(file, {.pairs = true, .own_encoder = false});
  ASSERT_FALSE(refused.has_value());
  EXPECT_NE(refused.error().message.find("pairs of texts"), std::string::npos);
}

INSTANTIATE_TEST_SUITE_P(MiniLm, BertPairs, ::testing::Values("bert"));

}  // namespace
}  // namespace tailor
