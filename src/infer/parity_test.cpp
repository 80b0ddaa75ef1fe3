// The two default models against PyTorch: files made by tests/golden/infer_golden.py.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "core/json.h"
#include "infer/embedder.h"
#include "infer/label_scorer.h"
#include "infer/log_softmax.h"
#include "infer/test_models.h"

namespace tailor {
namespace {

const CancelToken kNever;
const LabelScorerOptions kExact{.threads = 2, .f32_cache = true, .flash_attention = false};

Json golden_json(const char* name) {
  return read_json(testing::golden(name)).value();
}

TEST(Parity, NextTokenLogitsEqualTransformers) {
  LabelScorer scorer = LabelScorer::load(testing::smollm_f32(), kExact).value();
  const Json golden = golden_json("infer_logits.json");
  for (const Json& row : golden.at("prompts")) {
    const auto tokens = row.at("tokens").get<TokenList>();
    EXPECT_EQ(scorer.tokenizer().encode(row.at("prompt").get<std::string>(), false), tokens);
    const std::vector<float> logits = scorer.next_token_logits(tokens).value();
    EXPECT_NEAR(log_sum_exp(logits), row.at("log_sum_exp").get<double>(), 1e-3);
    for (const Json& pair : row.at("logits")) {
      EXPECT_NEAR(logits[pair.at(0).get<std::size_t>()], pair.at(1).get<double>(), 1e-3) << row.at("prompt");
    }
  }
}

TEST(Parity, TrieOnARealModelEqualsOneLabelAtATime) {
  LabelScorer scorer = LabelScorer::load(testing::smollm_f32(), kExact).value();
  const std::vector<std::string> names{"card arrival",
                                       "card linking",
                                       "card lost",
                                       "card payment fee charged",
                                       "card payment not recognised",
                                       "change pin",
                                       "cash withdrawal",
                                       "cash withdrawal charge",
                                       "top up failed",
                                       "top up limits",
                                       "top up reverted",
                                       "transfer fee",
                                       "transfer timing",
                                       "verify my identity",
                                       "verify top up",
                                       "exchange rate",
                                       "exchange via app",
                                       "age limit",
                                       "lost phone",
                                       "refund not showing up"};
  std::vector<TokenList> labels;
  for (const std::string& name : names) labels.push_back(scorer.tokenizer().encode(" " + name + "\n", false));
  scorer.set_labels(labels, names).value();
  const std::string instruction = "Classify the customer's message.\nMessage:";
  std::vector<TokenList> prompts;
  for (const char* text :
       {"I still wait for my new card", "why was i charged for taking out cash?", "how do I prove who I am"}) {
    prompts.push_back(scorer.tokenizer().encode(instruction + " " + text + "\nLabel:", false));
  }
  scorer.set_prefix(TokenList(prompts[0].begin(), prompts[0].begin() + 5)).value();
  const std::vector<LabelScores> scores = scorer.score_all(prompts, {}, kNever).value();
  const std::vector<BestLabel> best = scorer.best(prompts, {}, {}, kNever).value();
  for (std::size_t i = 0; i < prompts.size(); ++i) {
    const LabelScores reference = scorer.score_one_at_a_time(prompts[i]).value();
    for (std::size_t l = 0; l < labels.size(); ++l) EXPECT_NEAR(scores[i][l], reference[l], 1e-4) << names[l];
    EXPECT_EQ(best[i].label, std::max_element(reference.begin(), reference.end()) - reference.begin());
  }
}

struct EncoderCase {
  ImportType type;
  bool own;
  double cosine;
};

TEST(Parity, EmbeddingsEqualSentenceTransformers) {
  const Json golden = golden_json("infer_minilm.json");
  std::vector<std::string> texts;
  for (const Json& row : golden.at("texts")) texts.push_back(row.at("text").get<std::string>());
  for (const EncoderCase& c :
       {EncoderCase{ImportType::kF32, true, 0.999999}, EncoderCase{ImportType::kF16, true, 0.99999},
        EncoderCase{ImportType::kQ8_0, true, 0.999}, EncoderCase{ImportType::kF32, false, 0.9999},
        EncoderCase{ImportType::kF16, false, 0.9999}}) {
    Embedder embedder = Embedder::load(testing::minilm_gguf(c.type), {.threads = 2, .own_encoder = c.own}).value();
    EXPECT_TRUE(embedder.is_encoder());
    const Matrix vectors = embedder.embed(texts, {}, kNever).value();
    for (std::size_t i = 0; i < texts.size(); ++i) {
      const auto expected = golden.at("texts").at(i).at("vector").get<std::vector<double>>();
      ASSERT_EQ(vectors.cols, expected.size());
      double cosine = 0;  // both have length 1
      for (std::size_t k = 0; k < expected.size(); ++k) cosine += expected[k] * vectors.row(i)[k];
      EXPECT_GE(cosine, c.cosine) << name_of(c.type) << ": " << texts[i];
    }
  }
}

}  // namespace
}  // namespace tailor
