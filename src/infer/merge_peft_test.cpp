#include "model/merge_peft.h"

#include <gtest/gtest.h>

#include "core/files.h"
#include "core/rng.h"
#include "core/safetensors.h"
#include "infer/label_scorer.h"
#include "model/gguf_file.h"
#include "model/import.h"
#include "model/test_decoder_family.h"

namespace tailor {
namespace {

namespace fs = std::filesystem;
using testing::expect_error;

/// A case of tests/golden/peft_adapter_golden.py as PEFT would have saved it.
class PeftCase {
 public:
  explicit PeftCase(const std::string& name) {
    const Json golden = read_json(testing::golden("peft_adapters.json")).value();
    const Json& one = golden["cases"][name];
    base = one["base"];
    config = one["config"];
    logits = one["logits"].get<std::vector<float>>();
    std::uint64_t stream = 0;
    for (const Json& item : one["tensors"]) {
      shapes.push_back(item[1].get<std::vector<std::int64_t>>());
      std::int64_t count = 1;
      for (const std::int64_t n : shapes.back()) count *= n;
      Rng rng(golden["seed"].get<std::uint64_t>(), stream++);
      std::vector<float> numbers;
      for (std::int64_t i = 0; i < count; ++i)
        numbers.push_back(static_cast<float>(item[2].get<double>() + 0.2 * rng.normal()));
      names.push_back(item[0]);
      values.push_back(std::move(numbers));
    }
  }
  void write(const fs::path& dir) const {
    fs::create_directories(dir);
    write_json_atomic(dir / "adapter_config.json", config).value();
    std::vector<SafeTensor> tensors;
    for (std::size_t i = 0; i < names.size(); ++i)
      tensors.push_back(safe_tensor<float>(names[i], "F32", shapes[i], values[i]));
    write_safetensors(dir / "adapter_model.safetensors", tensors).value();
  }
  std::string base;
  Json config;
  std::vector<float> logits;  // after the last two tokens
  std::vector<std::string> names;
  std::vector<std::vector<std::int64_t>> shapes;
  std::vector<std::vector<float>> values;
};

class MergePeft : public ::testing::Test {
 protected:
  Status merge(const PeftCase& peft) {
    const testing::TinyDecoder model(peft.base);
    fs::remove_all(dir_.path());
    model.write(dir_.path() / "model");
    tokens_ = model.reference["tokens"].get<std::vector<std::int32_t>>();
    TAILOR_CHECK(import_hugging_face(dir_.path() / "model", dir_.path() / "model.gguf", {.type = ImportType::kF32}));
    peft.write(dir_.path() / "adapter");
    return merge_peft_adapter(dir_.path() / "model.gguf", dir_.path() / "adapter", out_);
  }
  void refuses(const PeftCase& peft, const std::string& part) {
    expect_error(merge(peft), ErrorCode::kInvalidArgument, part);
    EXPECT_FALSE(fs::exists(out_));
  }
  TemporaryDirectory dir_{"merge-peft"};
  fs::path out_ = dir_.path() / "merged.gguf";
  std::vector<std::int32_t> tokens_;
};

TEST_F(MergePeft, LogitsAreThoseOfPeft) {
  for (const char* name :
       {"llama", "llama_patterns", "llama_dora", "llama_saved", "llama_ia3", "qwen2_bias", "gpt2", "gptneox"}) {
    const PeftCase peft(name);
    merge(peft).value();
    LabelScorer scorer = LabelScorer::load(out_, {.threads = 1, .f32_cache = true, .flash_attention = false}).value();
    const std::size_t width = peft.logits.size() / 2;
    for (std::size_t back = 0; back < 2; ++back) {
      TokenList tokens;
      for (std::size_t i = 0; i + back < tokens_.size(); ++i) tokens.push_back(tokens_[i]);
      const std::vector<float> logits = scorer.next_token_logits(tokens).value();
      ASSERT_EQ(logits.size(), width) << name;
      double worst = 0;
      for (std::size_t i = 0; i < width; ++i)
        worst = std::max(worst, std::abs(static_cast<double>(logits[i]) - peft.logits[(1 - back) * width + i]));
      // llama.cpp reads GELU from a table of f16 values.
      EXPECT_LT(worst, std::string(name).starts_with("gpt") ? 5e-3 : 1e-4) << name;
    }
  }
}

TEST_F(MergePeft, SaysWhatDoesNotFit) {
  PeftCase peft("llama");
  peft.config["peft_type"] = "PREFIX_TUNING";
  refuses(peft, "its peft_type is 'PREFIX_TUNING'; LORA and IA3 can be folded");
  peft = PeftCase("llama");
  peft.config["init_lora_weights"] = "pissa";
  refuses(peft, "begins as pissa");
  peft = PeftCase("llama");
  peft.names[0] = "base_model.model.model.layers.7.mlp.down_proj.lora_A.weight";
  refuses(peft, "model.layers.7.mlp.down_proj, which the model has not");
  peft = PeftCase("llama");
  peft.names[0] = "base_model.model.model.layers.0.mlp.down_proj.something";
  refuses(peft, "belongs to no part of the model");
  peft = PeftCase("llama");
  peft.names[0] = "base_model.model.lm_head.lora_A.weight";
  refuses(peft, "missing");
  peft = PeftCase("llama");
  peft.shapes[1] = {4, 32};
  refuses(peft, "have shapes [4, 64] and [4, 32], expected [r, 64] and [32, r]");
  peft = PeftCase("llama_saved");
  peft.shapes[1] = {peft.shapes[1][0] + 2, peft.shapes[1][1]};
  peft.values[1].resize(peft.values[1].size() + 2 * 32);
  refuses(peft, "has rows for 290 tokens, the model knows 288: it was trained with tokens that were added");
  peft = PeftCase("llama");
  for (auto& numbers : peft.values) std::fill(numbers.begin(), numbers.end(), 0.0f);
  refuses(peft, "changes not one weight");
}

TEST_F(MergePeft, APickleIsRefused) {
  const PeftCase peft("llama");
  merge(peft).value();
  fs::rename(dir_.path() / "adapter" / "adapter_model.safetensors", dir_.path() / "adapter" / "adapter_model.bin");
  expect_error(merge_peft_adapter(dir_.path() / "model.gguf", dir_.path() / "adapter", dir_.path() / "other.gguf"),
               ErrorCode::kInvalidArgument, "its weights are a pickle");
}

}  // namespace
}  // namespace tailor
