#include "model/merge_adapter.h"

#include <gtest/gtest.h>

#include "infer/label_scorer.h"
#include "infer/test_models.h"
#include "model/requantize.h"

namespace tailor {
namespace {

namespace fs = std::filesystem;

std::vector<float> logits(const fs::path& gguf, const fs::path& adapter) {
  LabelScorer scorer =
      LabelScorer::load(gguf, {.threads = 1, .f32_cache = true, .flash_attention = false, .adapter = adapter}).value();
  return scorer.next_token_logits(scorer.tokenizer().encode("Where is my key?", false)).value();
}

double largest_difference(const std::vector<float>& a, const std::vector<float>& b) {
  double largest = 0;
  for (std::size_t i = 0; i < a.size(); ++i) largest = std::max(largest, std::abs(static_cast<double>(a[i]) - b[i]));
  return largest;
}

TEST(MergeAdapter, AnswersAsLlamaCppWithTheAdapterBeside) {
  TemporaryDirectory dir;
  testing::write_tiny_adapter(dir.path() / "adapter.gguf");
  merge_adapter(testing::tiny_llama(), dir.path() / "adapter.gguf", dir.path() / "merged.gguf").value();
  const auto beside = logits(testing::tiny_llama(), dir.path() / "adapter.gguf");
  const auto merged = logits(dir.path() / "merged.gguf", {});
  EXPECT_LT(largest_difference(merged, beside), 1e-3);
  EXPECT_GT(largest_difference(merged, logits(testing::tiny_llama(), {})), 0.1);  // the adapter does something
}

TEST(MergeAdapter, RefusesWhatDoesNotFit) {
  TemporaryDirectory dir;
  const auto merge = [&] {
    return merge_adapter(testing::tiny_llama(), dir.path() / "adapter.gguf", dir.path() / "merged.gguf");
  };
  testing::write_tiny_adapter(dir.path() / "adapter.gguf", 32);
  testing::expect_error(merge(), ErrorCode::kInvalidArgument, "blk.0.attn_q.weight have another shape");
  testing::write_tiny_adapter(dir.path() / "adapter.gguf", 64, "blk.7.attn_q.weight.lora_a");
  testing::expect_error(merge(), ErrorCode::kInvalidArgument, "blk.7.attn_q.weight, which the model has not");
  testing::write_tiny_adapter(dir.path() / "adapter.gguf", 64, "blk.1.attn_q.weight.lora_a");
  testing::expect_error(merge(), ErrorCode::kInvalidArgument, "one of the two matrices for blk.1.attn_q.weight");
  testing::write_tiny_adapter(dir.path() / "adapter.gguf", 64, "something");
  testing::expect_error(merge(), ErrorCode::kInvalidArgument, "something is no part of an adapter");
  EXPECT_FALSE(fs::exists(dir.path() / "merged.gguf"));
}

TEST(MergeAdapter, QuantisedMatricesBecomeF16) {
  TemporaryDirectory dir;
  testing::write_tiny_adapter(dir.path() / "adapter.gguf", 64, "", 0.003);  // far below a step of q4_0
  requantize(testing::tiny_llama(), dir.path() / "q4.gguf", QuantType::kQ4_0, 1).value();
  merge_adapter(dir.path() / "q4.gguf", dir.path() / "adapter.gguf", dir.path() / "merged.gguf").value();
  const GgufFile merged = GgufFile::open(dir.path() / "merged.gguf").value();
  EXPECT_EQ(merged.tensor("blk.0.attn_q.weight")->type, TensorType::kF16);
  EXPECT_EQ(merged.tensor("blk.0.attn_k.weight")->type, TensorType::kQ4_0);
}

TEST(MergeAdapter, WithF32WhatChangesIsNotRounded) {
  TemporaryDirectory dir;
  testing::write_tiny_adapter(dir.path() / "adapter.gguf", 64, "", 0.003);  // near to a step of f16
  requantize(testing::tiny_llama(), dir.path() / "f16.gguf", QuantType::kF16, 1).value();
  merge_adapter(dir.path() / "f16.gguf", dir.path() / "adapter.gguf", dir.path() / "f32.gguf", TensorType::kF32)
      .value();
  merge_adapter(dir.path() / "f16.gguf", dir.path() / "adapter.gguf", dir.path() / "rounded.gguf").value();
  const GgufFile exact = GgufFile::open(dir.path() / "f32.gguf").value();
  const GgufFile rounded = GgufFile::open(dir.path() / "rounded.gguf").value();
  EXPECT_EQ(exact.tensor("blk.0.attn_q.weight")->type, TensorType::kF32);
  EXPECT_EQ(exact.tensor("blk.0.attn_k.weight")->type, TensorType::kF16);
  const auto a = exact.tensor_f32("blk.0.attn_q.weight").value(), b = rounded.tensor_f32("blk.0.attn_q.weight").value();
  EXPECT_GT(largest_difference(a, b), 0);
  EXPECT_LT(largest_difference(a, b), 1e-3);
}

TEST(MergeAdapter, OneThatChangesNothingIsAnError) {
  TemporaryDirectory dir;
  testing::write_tiny_adapter(dir.path() / "adapter.gguf", 64, "", 0);
  testing::expect_error(merge_adapter(testing::tiny_llama(), dir.path() / "adapter.gguf", dir.path() / "merged.gguf"),
                        ErrorCode::kInvalidArgument, "changes not one weight");
  EXPECT_FALSE(fs::exists(dir.path() / "merged.gguf"));
}

}  // namespace
}  // namespace tailor
