/// Embeddings of tiny models of other families against transformers (tests/golden/encoder_family_golden.py).

#include <gtest/gtest.h>

#include <cmath>

#include "core/files.h"
#include "core/json.h"
#include "infer/embedder.h"
#include "model/import.h"
#include "model/test_encoder_family.h"
#include "model/word_tokens.h"

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

// The mean of a text's states is its vector, by our encoder and by llama.cpp.
TEST_P(EncoderFamilyParity, StatesOfTokensAreThoseBehindTheVector) {
  const testing::TinyEncoder model(GetParam());
  const TemporaryDirectory dir("encoder-family"), out("encoder-family-out");
  model.write(dir.path());
  const auto gguf = out.path() / "m.gguf";
  import_hugging_face(dir.path(), gguf).value();
  const std::vector<std::string> texts = {"Hello there, world!", "two words", "a", "and some more of them: seven"};
  for (const bool own : {true, false}) {
    EmbedderOptions options{
        .threads = 2, .pooling = Pooling::kMean, .normalise = false, .own_encoder = own, .flash_attention = false};
    Embedder whole = Embedder::load(gguf, options).value();
    options.pooling = Pooling::kNone;
    Embedder each = Embedder::load(gguf, options).value();
    const Matrix vectors = whole.embed(texts, {}, CancelToken()).value();
    std::vector<std::vector<std::int32_t>> rows;
    for (const std::string& text : texts) rows.push_back(each.tokenizer().encode(text, true));
    std::vector<std::vector<float>> states(texts.size());
    each.token_states(
            rows, [&](std::size_t i, std::span<const float> s) { states[i].assign(s.begin(), s.end()); }, {},
            CancelToken())
        .value();
    for (std::size_t i = 0; i < texts.size(); ++i) {
      const auto width = static_cast<std::size_t>(each.dim());
      ASSERT_EQ(states[i].size(), rows[i].size() * width);
      for (std::size_t c = 0; c < width; ++c) {
        double mean = 0;
        for (std::size_t t = 0; t < rows[i].size(); ++t) mean += states[i][t * width + c];
        EXPECT_NEAR(mean / static_cast<double>(rows[i].size()), vectors.row(i)[c], 2e-5) << texts[i];
      }
    }
    const std::vector<std::vector<std::int32_t>> empty(1);
    EXPECT_FALSE(each.token_states(empty, {}, {}, CancelToken()).has_value());
  }
}

// Words one by one are transformers' "is_split_into_words": the same ids as of the whole text where the words stand so.
TEST_P(EncoderFamilyParity, WordsHaveTheirTokens) {
  const testing::TinyEncoder model(GetParam());
  const TemporaryDirectory dir("encoder-family"), out("encoder-family-out");
  model.write(dir.path());
  import_hugging_face(dir.path(), out.path() / "m.gguf").value();
  const Tokenizer tokenizer = Tokenizer::load(out.path() / "m.gguf").value();
  const std::string text = "there were three of them";
  const auto words = word_spans(text);
  const auto whole = encode_words(tokenizer, text, words, false, 48);
  ASSERT_EQ(whole.size(), 1u);
  EXPECT_EQ(whole[0].ids, tokenizer.encode(text, true));
  ASSERT_EQ(whole[0].tokens.size(), words.size());
  EXPECT_EQ(whole[0].tokens[0], 1u);
  const auto windows = encode_words(tokenizer, text, words, false, 6);
  EXPECT_GT(windows.size(), 1u);
  std::size_t answered = 0;
  for (const WordTokens& window : windows) {
    EXPECT_LE(window.ids.size(), 6u);
    EXPECT_EQ(window.ids.front(), whole[0].ids.front());
    EXPECT_EQ(window.ids.back(), whole[0].ids.back());
    EXPECT_EQ(window.first_word, answered);  // one after another, each word once
    answered += window.tokens.size();
  }
  EXPECT_EQ(answered, words.size());
  const std::string odd = "\xE2\x80\x8B";  // a zero-width space is a word of nothing to WordPiece
  const std::vector<WordSpan> one = {{0, 3}};
  EXPECT_EQ(encode_words(tokenizer, odd, one, true, 8)[0].tokens.size(), 1u);
}

// 40 words of one token each, windows of 10 + 2 tokens that share 2: a word is answered where more stands around it.
TEST_P(EncoderFamilyParity, AWordIsAnsweredWhereItStandsFarthestFromAnEdge) {
  const testing::TinyEncoder model(GetParam());
  const TemporaryDirectory dir("encoder-family"), out("encoder-family-out");
  model.write(dir.path());
  import_hugging_face(dir.path(), out.path() / "m.gguf").value();
  const Tokenizer tokenizer = Tokenizer::load(out.path() / "m.gguf").value();
  std::string text;
  for (int i = 0; i < 40; ++i) text += text.empty() ? "a" : " a";
  const auto words = word_spans(text);
  ASSERT_EQ(words.size(), 40u);
  ASSERT_EQ(encode_words(tokenizer, text, words, true, 100)[0].ids.size(), 42u);
  const auto windows = encode_words(tokenizer, text, words, true, 12);
  // They begin at words 0, 8, 16, 24, 32; the two that neighbours share are answered by one of them each.
  ASSERT_EQ(windows.size(), 5u);
  for (std::size_t i = 0; i < windows.size(); ++i) {
    EXPECT_EQ(windows[i].ids.size(), i + 1 < windows.size() ? 12u : 10u);
    EXPECT_EQ(windows[i].first_word, i == 0 ? 0u : 8 * i + 1);
    EXPECT_EQ(windows[i].tokens.size(), i == 0 ? 9u : i + 1 < windows.size() ? 8u : 7u);
    EXPECT_EQ(windows[i].tokens.front(), i == 0 ? 1u : 2u);
  }
}

INSTANTIATE_TEST_SUITE_P(Families, EncoderFamilyParity, ::testing::Values("distilbert", "roberta", "modernbert"));

}  // namespace
}  // namespace tailor
