#include "model/merge_peft.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "core/files.h"
#include "core/rng.h"
#include "core/safetensors.h"
#include "infer/embedder.h"
#include "infer/label_scorer.h"
#include "model/gguf_file.h"
#include "model/import.h"
#include "model/test_decoder_family.h"
#include "model/test_encoder_family.h"

namespace tailor {
namespace {

namespace fs = std::filesystem;
using testing::expect_error;

/// A case of tests/golden/peft_adapter_golden.py or peft_encoder_golden.py as PEFT would have saved it.
class PeftCase {
 public:
  explicit PeftCase(const std::string& name, const char* file = "peft_adapters.json", double deviation = 0.2)
      : golden(read_json(testing::golden(file)).value()), one(golden["cases"][name]) {
    base = one["base"];
    config = one["config"];
    if (one.contains("logits")) logits = one["logits"].get<std::vector<float>>();
    std::uint64_t stream = 0;
    for (const Json& item : one["tensors"]) {
      shapes.push_back(item[1].get<std::vector<std::int64_t>>());
      std::int64_t count = 1;
      for (const std::int64_t n : shapes.back()) count *= n;
      Rng rng(golden["seed"].get<std::uint64_t>(), stream++);
      std::vector<float> numbers;
      for (std::int64_t i = 0; i < count; ++i)
        numbers.push_back(static_cast<float>(item[2].get<double>() + deviation * rng.normal()));
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
  Json golden, one;
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
    TAILOR_CHECK(merge_peft_adapter(dir_.path() / "model.gguf", dir_.path() / "adapter", out_));
    return {};
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
  const Json cases = read_json(testing::golden("peft_adapters.json")).value().at("cases");
  EXPECT_EQ(cases.size(), 8u + 18u) << "kinds of adapter, and one on each family";
  for (const auto& [name, unused] : cases.items()) {
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
      const std::string& base = peft.base;
      const bool gelu = base.starts_with("g") || base.starts_with("falcon") || base == "bloom" || base == "mpt";
      EXPECT_LT(worst, gelu ? 5e-3 : 1e-4) << name;
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
  peft.names[1] = "base_model.model.model.layers.7.mlp.down_proj.lora_B.weight";
  refuses(peft, "model.layers.7.mlp.down_proj, which the model has not");
  peft = PeftCase("llama");
  peft.names[0] = "base_model.model.model.layers.0.mlp.down_proj.something";
  peft.names[1] = "base_model.model.model.layers.0.mlp.down_proj.another";
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

class MergePeftEncoder : public ::testing::TestWithParam<const char*> {
 protected:
  /// Writes base and adapter, and folds.
  Result<PeftMerge> merge(const PeftCase& peft) {
    const bool bert = peft.base == "bert";
    testing::TinyEncoder model(bert ? "distilbert" : peft.base);
    if (bert) {
      model.files["config.json"] = peft.golden["bert"]["config"];
      model.tensors.clear();
      std::uint64_t stream = 0;
      for (const Json& item : peft.golden["bert"]["tensor_names"]) {
        const auto name = item[0].get<std::string>();
        testing::TinyEncoder::Tensor t{item[1].get<std::vector<std::int64_t>>(), {}};
        std::int64_t count = 1;
        for (const std::int64_t n : t.shape) count *= n;
        Rng rng(peft.golden["bert"]["seed"].get<std::uint64_t>(), stream++);
        for (std::int64_t i = 0; i < count; ++i)
          t.values.push_back(static_cast<float>(0.2 * rng.normal() + (name.ends_with("LayerNorm.weight") ? 1 : 0)));
        model.tensors[name] = std::move(t);
      }
    }
    fs::create_directories(dir_.path() / "model");
    model.write(dir_.path() / "model");
    TAILOR_CHECK(import_hugging_face(dir_.path() / "model", dir_.path() / "model.gguf", {.type = ImportType::kF32}));
    peft.write(dir_.path() / "adapter");
    return merge_peft_adapter(dir_.path() / "model.gguf", dir_.path() / "adapter", out_);
  }
  static PeftCase of(const std::string& name) { return PeftCase(name, "peft_encoders.json", 0.1); }
  TemporaryDirectory dir_{"merge-peft-encoder"};
  fs::path out_ = dir_.path() / "merged.gguf";
};

TEST_P(MergePeftEncoder, EmbedsAsPeft) {
  const PeftCase peft = of(GetParam());
  PeftMerge merged = merge(peft).value();
  std::sort(merged.left_out.begin(), merged.left_out.end());
  EXPECT_EQ(merged.left_out, peft.one["left_out"].get<std::vector<std::string>>());
  const Json texts = read_json(testing::golden("tokenizer_golden.json")).value().at("texts");
  std::vector<std::string> embedded;
  for (std::size_t i = 0; i < peft.one["vectors"].size(); ++i) embedded.push_back(texts[i]);
  Embedder embedder = Embedder::load(out_, {.threads = 1, .pooling = Pooling::kMean}).value();
  const Matrix rows = embedder.embed(embedded, {}, CancelToken()).value();
  for (std::size_t i = 0; i < embedded.size(); ++i) {
    const auto expected = peft.one["vectors"][i].get<std::vector<float>>();
    ASSERT_EQ(expected.size(), rows.row(i).size());
    for (std::size_t k = 0; k < expected.size(); ++k) EXPECT_NEAR(rows.row(i)[k], expected[k], 2e-5f) << embedded[i];
  }
}

INSTANTIATE_TEST_SUITE_P(Cases, MergePeftEncoder,
                         ::testing::Values("bert_classifier", "bert_dora", "distilbert", "roberta_bias", "roberta_ia3",
                                           "modernbert"));

TEST_F(MergePeftEncoder, SaysWhatDoesNotFit) {
  PeftCase peft = of("distilbert");
  for (std::string& name : peft.names) {
    if (name.find("layer.1.ffn.lin1") != std::string::npos) name.replace(name.find("layer.1."), 8, "layer.9.");
  }
  expect_error(merge(peft), ErrorCode::kInvalidArgument, "transformer.layer.9.ffn.lin1, which the model has not");
  peft = of("bert_classifier");
  std::vector<std::size_t> outside;
  for (std::size_t i = 0; i < peft.names.size(); ++i) {
    if (peft.names[i].find(".encoder.") == std::string::npos) outside.push_back(i);
  }
  PeftCase head = of("bert_classifier");
  head.names.clear(), head.shapes.clear(), head.values.clear();
  for (const std::size_t i : outside) {
    head.names.push_back(peft.names[i]);
    head.shapes.push_back(peft.shapes[i]);
    head.values.push_back(peft.values[i]);
  }
  expect_error(merge(head), ErrorCode::kInvalidArgument, "it changes nothing of the encoder, only classifier.bias");
  EXPECT_FALSE(fs::exists(out_));
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
