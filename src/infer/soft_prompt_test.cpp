// Soft prompts in llama.cpp's caches: of one kind, or of two where layers see a window. That they are served as they
// were trained is held by tests/recipes/tune_families_test.cpp.

#include "infer/soft_prompt.h"

#include <gtest/gtest.h>
#include <llama.h>

#include "infer/llama_context.h"
#include "model/import.h"
#include "model/test_decoder_family.h"

namespace tailor {
namespace {

using testing::expect_error;

constexpr std::size_t kVirtual = 9;  // more than the window of tiny Gemma's layers, which is 5

class SoftPrompts : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    testing::TinyDecoder(GetParam()).write(dir_.path() / "m");
    import_hugging_face(dir_.path() / "m", dir_.path() / "m.gguf", {.type = ImportType::kF32}).value();
    model_ = LoadedModel::load(dir_.path() / "m.gguf", {}).value();
  }
  LlamaContextPtr context(bool f32, bool flash, int sequences) {
    llama_context_params params = llama_context_default_params();
    params.n_ctx = 512;
    params.n_batch = params.n_ubatch = 64;
    params.n_seq_max = static_cast<std::uint32_t>(sequences);
    params.kv_unified = true;
    params.n_threads = params.n_threads_batch = 1;
    params.type_k = params.type_v = f32 ? GGML_TYPE_F32 : GGML_TYPE_F16;
    params.flash_attn_type = flash ? LLAMA_FLASH_ATTN_TYPE_ENABLED : LLAMA_FLASH_ATTN_TYPE_DISABLED;
    return model_->make_context(params).value();
  }
  SoftPrompt prefix(std::size_t width) const {
    SoftPrompt prompt;
    for (int layer = 0; layer < llama_model_n_layer(model_->get()); ++layer) {
      prompt.keys.emplace_back(kVirtual, width);
      prompt.values.emplace_back(kVirtual, width);
      for (std::size_t i = 0; i < kVirtual * width; ++i) {
        prompt.keys.back().data[i] = 0.01f * static_cast<float>(i % 97) - 0.4f;
        prompt.values.back().data[i] = 0.02f * static_cast<float>(i % 61) - 0.5f;
      }
    }
    return prompt;
  }
  /// Logits after one token behind the prompt.
  std::vector<float> answer(llama_context* context) const {
    DecodeBatch batch;
    batch.add(20, kVirtual, {}, true);
    batch.decode(context, "tiny").value();
    const float* logits = llama_get_logits_ith(context, 0);
    return {logits, logits + model_->vocabulary()};
  }
  TemporaryDirectory dir_{"soft"};
  std::shared_ptr<const LoadedModel> model_;
};

TEST_P(SoftPrompts, KeysAndValuesAreTheSameInEveryLayoutOfTheCache) {
  const std::string head = model_->metadata(model_->metadata("general.architecture") + ".attention.key_length");
  const int head_width =
      head.empty() ? llama_model_n_embd(model_->get()) / llama_model_n_head(model_->get()) : std::stoi(head);
  const auto width = static_cast<std::size_t>(llama_model_n_head_kv(model_->get()) * head_width);
  const SoftPrompt prompt = prefix(width);
  std::vector<float> first;
  for (const bool f32 : {true, false}) {
    for (const bool flash : {true, false}) {
      for (const int sequences : {1, 4}) {
        const LlamaContextPtr c = context(f32, flash, sequences);
        decode_soft_prompt(c.get(), prompt, 4).value();
        EXPECT_EQ(llama_memory_seq_pos_max(llama_get_memory(c.get()), 0), static_cast<int>(kVirtual) - 1);
        const std::vector<float> logits = answer(c.get());
        if (first.empty()) first = logits;
        for (std::size_t i = 0; i < logits.size(); ++i)
          ASSERT_NEAR(logits[i], first[i], 0.02) << f32 << flash << sequences;
      }
    }
  }
  // They matter.
  SoftPrompt other = prompt;
  for (Matrix& values : other.values) {
    for (float& v : values.data) v = -v;
  }
  const LlamaContextPtr c = context(true, true, 1);
  decode_soft_prompt(c.get(), other, 64).value();
  const std::vector<float> changed = answer(c.get());
  double apart = 0;
  for (std::size_t i = 0; i < changed.size(); ++i) apart = std::max(apart, std::abs(double{changed[i]} - first[i]));
  EXPECT_GT(apart, 0.1);
}

TEST_P(SoftPrompts, WhatDoesNotFitTheModelIsRefused) {
  const LlamaContextPtr c = context(true, true, 1);
  SoftPrompt vectors;
  vectors.embeddings = Matrix(3, 8);
  expect_error(decode_soft_prompt(c.get(), vectors, 64), ErrorCode::kInvalidArgument, "its vectors have 8 numbers");
  SoftPrompt layers = prefix(16);
  layers.keys.pop_back();
  layers.values.pop_back();
  expect_error(decode_soft_prompt(c.get(), layers, 64), ErrorCode::kInvalidArgument, "it has 1 layers, the model 2");
  expect_error(decode_soft_prompt(c.get(), prefix(5), 64), ErrorCode::kInvalidArgument, "keys and values");
}

INSTANTIATE_TEST_SUITE_P(Families, SoftPrompts, ::testing::Values("llama", "gemma2", "gemma3", "gptneox", "falcon"),
                         [](const auto& test) { return std::string(test.param); });

}  // namespace
}  // namespace tailor
