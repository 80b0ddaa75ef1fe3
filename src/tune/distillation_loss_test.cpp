#include "tune/distillation_loss.h"

#include <ATen/ops/empty.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace tailor::tune {
namespace {

/// Three rows of three labels: answered and labelled, answered alone, labelled alone.
TokenFile rows() {
  TokenFile file;
  file.n_labels = 3;
  file.vocab_size = 9;
  const std::vector<std::int32_t> ids{1};
  for (const std::int32_t label : {0, -1, 2}) file.add_row(ids, label, TokenPart::kTrain, 0);
  file.soft_targets = {0.5f, 0.25f, 0.25f, 0.9f, 0.1f, 0, 0, 0, 0};
  return file;
}

at::Tensor tensor(std::vector<float> values) {
  at::Tensor t = at::empty({static_cast<std::int64_t>(values.size()) / 3, 3}, at::kFloat);
  std::copy(values.begin(), values.end(), t.data_ptr<float>());
  return t;
}

TEST(DistillationLoss, AStudentThatAnswersAsTheTeacherHasNoneOfIt) {
  const TokenFile file = rows();
  const std::int64_t row = 0;
  const auto logits = tensor({std::log(0.5f), std::log(0.25f), std::log(0.25f)});
  const auto loss = distillation_loss(logits, file, {&row, 1}, {.temperature = 4, .alpha = 1}, 0, 1);
  EXPECT_NEAR(loss.loss_sum, 0, 1e-6);
  for (int l = 0; l < 3; ++l) EXPECT_NEAR(loss.d_logits.data_ptr<float>()[l], 0, 1e-6);
  // By hand at T = 1: KL(p || uniform) = log 3 - H(p), H = 1.5 log 2.
  const auto even = distillation_loss(tensor({0, 0, 0}), file, {&row, 1}, {.temperature = 1, .alpha = 1}, 0, 1);
  EXPECT_NEAR(even.loss_sum, std::log(3.0) - 1.5 * std::log(2.0), 1e-6);
  // With the label's half: (log 3 - H) / 2 + log(3) / 2.
  const auto both = distillation_loss(tensor({0, 0, 0}), file, {&row, 1}, {.temperature = 1, .alpha = 0.5}, 0, 1);
  EXPECT_NEAR(both.loss_sum, std::log(3.0) - 0.75 * std::log(2.0), 1e-6);
}

TEST(DistillationLoss, ARowWithoutLabelOrAnswerLearnsFromTheOther) {
  const TokenFile file = rows();
  const std::vector<std::int64_t> unlabelled{1}, unanswered{2};
  const auto z = tensor({0.3f, -0.2f, 0.1f});
  const DistillSettings all{.temperature = 2, .alpha = 1}, some{.temperature = 2, .alpha = 0.25};
  EXPECT_EQ(distillation_loss(z, file, unlabelled, some, 0, 1).loss_sum,
            distillation_loss(z, file, unlabelled, all, 0, 1).loss_sum);
  const std::vector<std::int32_t> label{2};
  EXPECT_NEAR(distillation_loss(z, file, unanswered, all, 0, 1).loss_sum, classification_loss(z, label, 0, 1).loss_sum,
              1e-6);
}

TEST(DistillationLoss, TheGradientIsThatOfTheLoss) {
  const TokenFile file = rows();
  const std::vector<std::int64_t> all{0, 1, 2};
  const std::vector<float> at{0.3f, -0.7f, 1.1f, 2.0f, 0.1f, -0.4f, -1.0f, 0.6f, 0.2f};
  const DistillSettings settings{.temperature = 3, .alpha = 0.6};
  const auto loss_at = [&](const std::vector<float>& z) {
    return distillation_loss(tensor(z), file, all, settings, 0.1, 1).loss_sum;
  };
  const at::Tensor gradient = distillation_loss(tensor(at), file, all, settings, 0.1, 4).d_logits;
  for (std::size_t i = 0; i < at.size(); ++i) {
    std::vector<float> up = at, down = at;
    constexpr float kStep = 1e-2f;
    up[i] += kStep;
    down[i] -= kStep;
    const double slope = (loss_at(up) - loss_at(down)) / (static_cast<double>(up[i]) - down[i]);
    EXPECT_NEAR(gradient.data_ptr<float>()[i], slope / 4, 1e-4) << i;
  }
}

TEST(DistillationLoss, NamesRowsThatGiveNoNumber) {
  const TokenFile file = rows();
  const std::vector<std::int64_t> all{0, 1};
  const auto z = tensor({0, 0, 0, std::numeric_limits<float>::quiet_NaN(), 0, 0});
  const auto loss = distillation_loss(z, file, all, {}, 0, 1);
  EXPECT_EQ(loss.bad_rows, std::vector<std::size_t>{1});
  EXPECT_TRUE(std::isfinite(loss.loss_sum));
}

}  // namespace
}  // namespace tailor::tune
