#include "tune/decoder_classifier.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/safetensors.h"
#include "tune/adamw.h"
#include "tune/decoder_export.h"
#include "tune/decoder_test_model.h"
#include "tune/metric.h"

namespace tailor::tune::decoder {
namespace {

using testing::HasSubstr;
using testing::UnorderedElementsAre;

/// The golden rows as prompts with three labels; answers of two or three tokens, two of them prefixes of one another.
TokenFile labelled_rows(bool with_masks) {
  const Json reference = golden("decoder_tiny.json");
  TokenFile file;
  file.vocab_size = 128;
  file.n_labels = 3;
  const std::vector<std::vector<std::int32_t>> answers = {{5, 2}, {5, 6, 2}, {90, 2}};
  for (const auto& a : answers) file.add_label(a);
  for (std::int32_t r = 0; r < 9; ++r) {
    auto tokens = reference["rows"][static_cast<std::size_t>(r)]["tokens"].get<std::vector<std::int32_t>>();
    const std::int32_t label = r % 3;
    std::vector<std::uint8_t> mask;
    if (with_masks) {
      const auto& a = answers[static_cast<std::size_t>(label)];
      mask.assign(tokens.size(), 0);
      tokens.insert(tokens.end(), a.begin(), a.end());
      mask.resize(tokens.size(), 1);
    }
    file.add_row(tokens, label, r < 6 ? TokenPart::kTrain : TokenPart::kValidation, r + 100, mask);
  }
  return file;
}

class DecoderClassifierTest : public testing::Test {
 protected:
  DecoderClassifierTest() : open_(tiny_model(false)) {
    job_.task = Task::kCausalLmLabels;
    job_.method = "lora";
    job_.settings.lora.r = 4;
    job_.settings.lora.alpha = 8;
    job_.seed = 5;
  }
  std::unique_ptr<DecoderClassifier> make(const TokenFile& file) {
    return std::make_unique<DecoderClassifier>(ModelInput{job_, open_.base(), file, {}},
                                               DecoderOptions{lora_config(job_.settings.lora), {}});
  }
  OpenModel open_;
  Job job_;
};

void randomise(ParameterSet& parameters) {
  at::Tensor values = parameters.flat_values().detach();
  Rng rng(77);
  for (std::int64_t i = 0; i < values.numel(); ++i)
    values.data_ptr<float>()[i] = static_cast<float>(0.2 * rng.normal());
}

TEST_F(DecoderClassifierTest, ProbabilitiesAreThoseOfTheAnswersOneAtATime) {
  const TokenFile file = labelled_rows(false);
  const auto model = make(file);
  randomise(model->parameters());
  const std::vector<std::int64_t> rows = {8, 0, 3};
  const Predictions p = model->predict(rows);
  ASSERT_EQ(p.probabilities.size(), 9u);
  double loss = 0;
  for (std::size_t r = 0; r < rows.size(); ++r) {
    std::vector<double> scores;
    for (std::size_t l = 0; l < 3; ++l) {
      const std::vector<std::span<const std::int32_t>> answer = {file.label(l)};
      scores.push_back(model->label_scores({&rows[r], 1}, answer)[0]);
    }
    double total = 0;
    for (const double s : scores) total += std::exp(s);
    for (std::size_t l = 0; l < 3; ++l) EXPECT_NEAR(p.probabilities[3 * r + l], std::exp(scores[l]) / total, 1e-5);
    loss -= scores[static_cast<std::size_t>(rows[r] % 3)];
  }
  EXPECT_NEAR(p.loss_sum, loss, 1e-4);
  EXPECT_EQ(p.weight, 2 + 2 + 2);
}

TEST_F(DecoderClassifierTest, AnswersFromTheLabelOrFromTheMaskAreTheSameRows) {
  const TokenFile plain = labelled_rows(false);
  const TokenFile masked = labelled_rows(true);
  const auto a = make(plain);
  const auto b = make(masked);
  randomise(a->parameters());
  randomise(b->parameters());
  const std::vector<std::int64_t> rows = {0, 1, 2, 3};
  EXPECT_EQ(a->weight(rows), b->weight(rows));
  const LossSum la = a->forward_backward(rows, {.denominator = 9});
  const LossSum lb = b->forward_backward(rows, {.denominator = 9});
  EXPECT_EQ(la.loss_sum, lb.loss_sum);
  EXPECT_EQ(la.weight, a->weight(rows));
  EXPECT_LT(la.computed_tokens, la.tokens);
  EXPECT_TRUE(at::equal(a->parameters().flat_grad(), b->parameters().flat_grad()));
  EXPECT_EQ(a->predict(rows).probabilities, b->predict(rows).probabilities);
}

// Texts without labels: the same rows and losses, and the loss of each row by itself.
TEST_F(DecoderClassifierTest, MaskedTextsAreLearntAsAnswersAre) {
  const TokenFile masked = labelled_rows(true);
  TokenFile texts = masked;
  texts.n_labels = 0;
  texts.label_tokens.clear();
  texts.label_offsets.clear();
  std::fill(texts.labels.begin(), texts.labels.end(), -1);
  const auto labels = make(masked);
  job_.task = Task::kCausalLm;
  const auto model = make(texts);
  randomise(labels->parameters());
  randomise(model->parameters());
  const std::vector<std::int64_t> rows = {5, 0, 3};
  EXPECT_EQ(model->weight(rows), labels->weight(rows));
  EXPECT_EQ(model->forward_backward(rows, {}).loss_sum, labels->forward_backward(rows, {}).loss_sum);
  EXPECT_TRUE(at::equal(model->parameters().flat_grad(), labels->parameters().flat_grad()));
  const Predictions p = model->predict(rows);
  EXPECT_EQ(p.labels, 0);
  EXPECT_NEAR(p.loss_sum, labels->predict(rows).loss_sum, 1e-4);
  ASSERT_EQ(p.row_losses.size(), 3u);
  for (std::size_t r = 0; r < 3; ++r) {
    const Predictions alone = model->predict({&rows[r], 1});
    EXPECT_NEAR(p.row_losses[r], alone.loss_sum, 1e-5);
    EXPECT_EQ(p.row_weights[r], alone.weight);
  }
  double likeliest = 0;
  for (const std::int64_t& r : rows) likeliest += model->predict({&r, 1}).likeliest.value();
  EXPECT_EQ(p.likeliest, likeliest);
  EXPECT_EQ(model->forward_backward(rows, {}).likeliest, likeliest) << "no dropout here";
  const Scores scores = score(p, texts, rows);
  EXPECT_EQ(scores.token_accuracy, likeliest / p.weight);
  // Without a mask all tokens but the first are learnt.
  texts.loss_mask.clear();
  const auto all = make(texts);
  EXPECT_EQ(all->weight({&rows[0], 1}), static_cast<double>(texts.row(5).size() - 1));
}

TEST_F(DecoderClassifierTest, MicroBatchesAddUpToTheBatch) {
  const TokenFile file = labelled_rows(false);
  const auto model = make(file);
  randomise(model->parameters());
  const std::vector<std::int64_t> rows = {0, 1, 2, 3, 4};
  const double weight = model->weight(rows);
  const double whole = model->forward_backward(rows, {.denominator = weight}).loss_sum;
  const at::Tensor gradient = model->parameters().flat_grad().clone();
  model->parameters().zero_grad();
  double sum = 0;
  for (const auto& part : {RowSpan(rows).first(2), RowSpan(rows).subspan(2, 2), RowSpan(rows).last(1)}) {
    sum += model->forward_backward(part, {.denominator = weight}).loss_sum;
  }
  EXPECT_NEAR(sum, whole, 1e-4);
  EXPECT_LT(at::max(at::abs(gradient - model->parameters().flat_grad())).item<float>(), 1e-6);
}

TEST_F(DecoderClassifierTest, NotFiniteRowsAreNamed) {
  const TokenFile file = labelled_rows(false);
  const auto model = make(file);
  at::Tensor values = model->parameters().flat_values().detach();
  values.fill_(std::numeric_limits<float>::quiet_NaN());
  const std::vector<std::int64_t> rows = {4, 2};
  EXPECT_THAT(model->forward_backward(rows, {}).bad_rows, UnorderedElementsAre(4, 2));
}

TEST_F(DecoderClassifierTest, WrongFilesAreRefused) {
  const auto message = [&](const TokenFile& file) -> std::string {
    try {
      make(file);
    } catch (const Exception& e) {
      return e.what();
    }
    return "no error";
  };
  TokenFile file = labelled_rows(false);
  file.vocab_size = 1000;
  EXPECT_THAT(message(file), HasSubstr("ids below 1000"));
  file = labelled_rows(false);
  file.label_tokens.clear();
  file.label_offsets.clear();
  EXPECT_THAT(message(file), HasSubstr("label_tokens"));
  file = labelled_rows(false);
  file.add_row(std::vector<std::int32_t>(300, 1), 0, TokenPart::kTrain, 777);
  EXPECT_THAT(message(file), HasSubstr("row 777 has 302 tokens"));
  file = labelled_rows(true);
  file.add_row(std::vector<std::int32_t>{1, 2}, 0, TokenPart::kTrain, 778, std::vector<std::uint8_t>{1, 0});
  EXPECT_THAT(message(file), HasSubstr("row 778 has no token that is learnt"));
  job_.settings.lora.r = 1000;
  EXPECT_THAT(message(labelled_rows(false)), HasSubstr("rank"));
}

/// Trained as the golden script trains, saved, and held against what PEFT saves.
TEST_F(DecoderClassifierTest, SavedAdapterIsThatOfPeft) {
  const Json reference = golden("decoder_tiny.json");
  TokenFile file;
  file.vocab_size = 128;
  const TestRows rows = test_rows(reference["rows"], 0, 12);
  for (std::size_t r = 0; r < 12; ++r) {
    file.add_row(rows.tokens[r], -1, TokenPart::kTrain, static_cast<std::int64_t>(r), rows.masks[r]);
  }
  const auto model = make(file);
  job_.settings.learning_rate = 1e-2;
  job_.settings.weight_decay = 0.01;
  AdamW optimizer(model->parameters(), job_.settings);
  for (std::int64_t step = 0; step < 20; ++step) {
    const std::int64_t at = 4 * (step % 3);
    const std::vector<std::int64_t> batch = {at, at + 1, at + 2, at + 3};
    const double weight = model->weight(batch);
    const LossSum loss = model->forward_backward(batch, {.denominator = weight});
    EXPECT_NEAR(loss.loss_sum / loss.weight, reference["losses"][static_cast<std::size_t>(step)].get<double>(), 1e-4);
    optimizer.step(1, 1);
  }
  const TemporaryDirectory dir;
  EXPECT_THAT(model->save(dir.path()).value(),
              UnorderedElementsAre("adapter_config.json", "adapter_model.safetensors", "adapter.gguf"));

  const SafetensorsFile saved = SafetensorsFile::open(dir.path() / "adapter_model.safetensors").value();
  EXPECT_EQ(saved.tensors().size(), reference["peft_shapes"].size());
  for (const auto& [name, shape] : reference["peft_shapes"].items()) {
    ASSERT_NE(saved.find(name), nullptr) << name;
    EXPECT_EQ(saved.find(name)->shape, shape.get<std::vector<std::int64_t>>()) << name;
  }
  for (const auto& [name, values] : reference["peft_values"].items()) {
    const auto* seen = reinterpret_cast<const float*>(saved.find(name)->bytes.data());
    for (std::size_t i = 0; i < values.size(); ++i) EXPECT_NEAR(seen[i], values[i].get<double>(), 1e-4) << name;
  }
  const Json config = read_json(dir.path() / "adapter_config.json").value();
  EXPECT_EQ(config["r"], 4);
  EXPECT_EQ(config["lora_alpha"], 8.0);
  EXPECT_EQ(config["task_type"], "CAUSAL_LM");
  EXPECT_EQ(config["target_modules"].size(), 7u);

  const BaseWeights gguf = BaseWeights::open(dir.path() / "adapter.gguf").value();
  EXPECT_EQ(gguf.text("general.type"), "adapter");
  EXPECT_EQ(gguf.text("adapter.type"), "lora");
  EXPECT_EQ(gguf.number("adapter.lora.alpha"), 8.0);
  const auto& p = model->parameters().at("blk.1.attn_q.lora_b");
  EXPECT_TRUE(at::equal(gguf.load("blk.1.attn_q.weight.lora_b"), p.value.detach()));
  EXPECT_EQ(gguf.names().size(), model->parameters().size());
}

}  // namespace
}  // namespace tailor::tune::decoder
