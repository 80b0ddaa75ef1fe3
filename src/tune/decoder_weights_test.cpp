#include "tune/decoder_weights.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tune/decoder_lora.h"
#include "tune/decoder_test_model.h"

namespace tailor::tune::decoder {
namespace {

using testing::AllOf;
using testing::HasSubstr;

Error open_error(const TestModel& m) {
  const TemporaryDirectory dir;
  write_gguf(m, dir.path() / "m.gguf");
  const BaseWeights base = BaseWeights::open(dir.path() / "m.gguf").value();
  const auto result = DecoderWeights::open(base, WeightStorage::kBlocks);
  EXPECT_FALSE(result.has_value());
  return result.has_value() ? Error{} : result.error();
}

TEST(DecoderWeights, OtherArchitectureIsNamed) {
  TestModel m = tiny_model(true);
  m.architecture = "mamba";
  EXPECT_THAT(open_error(m).message, HasSubstr("'mamba'"));
}

TEST(DecoderWeights, MissingTensorIsNamed) {
  TestModel m = tiny_model(true);
  std::erase_if(m.tensors, [](const TestTensor& t) { return t.name == "blk.1.ffn_up.weight"; });
  EXPECT_THAT(open_error(m).message, HasSubstr("'blk.1.ffn_up.weight' is missing"));
}

TEST(DecoderWeights, WrongShapeShowsBoth) {
  TestModel m = tiny_model(true);
  for (TestTensor& t : m.tensors) {
    if (t.name == "blk.0.attn_k.weight") t.shape = {32, 16};
  }
  EXPECT_THAT(open_error(m).message,
              AllOf(HasSubstr("blk.0.attn_k.weight"), HasSubstr("[16, 32]"), HasSubstr("[32, 16]")));
}

TEST(DecoderWeights, UnknownTensorIsRefused) {
  TestModel m = tiny_model(true);
  m.tensors.push_back({"blk.0.attn_sinks.weight", {32}, std::vector<float>(32)});
  EXPECT_THAT(open_error(m).message, HasSubstr("blk.0.attn_sinks.weight"));
}

TEST(DecoderWeights, ImpossibleShapeIsRefused) {
  TestModel m = tiny_model(true);
  m.kv_heads = 3;
  EXPECT_THAT(open_error(m).message, HasSubstr("impossible shape"));
}

std::string lora_error(const LoraConfig& config) {
  OpenModel model(tiny_model(true), WeightStorage::kBlocks);
  ParameterSet parameters;
  const auto result = LoraAdapters::attach(*model, config, 0, parameters);
  EXPECT_FALSE(result.has_value());
  return result.has_value() ? "" : to_string(result.error());
}

TEST(LoraAdapters, BadSettingsAreNamed) {
  EXPECT_THAT(lora_error({.targets = {}}), HasSubstr("no target"));
  EXPECT_THAT(lora_error({.targets = {"c_attn"}}), AllOf(HasSubstr("'c_attn'"), HasSubstr("q_proj")));
  EXPECT_THAT(lora_error({.rank = 17}), AllOf(HasSubstr("17"), HasSubstr("16")));
  EXPECT_THAT(lora_error({.rank = 0}), HasSubstr("rank is 0"));
  EXPECT_THAT(lora_error({.rank = 4, .dropout = 1}), HasSubstr("dropout"));
  EXPECT_THAT(lora_error({.rank = 4, .alpha = 0}), HasSubstr("alpha"));
}

TEST(LoraAdapters, TargetsByEitherNameAndOnlyThose) {
  OpenModel model(tiny_model(true), WeightStorage::kBlocks);
  ParameterSet parameters;
  auto adapters = LoraAdapters::attach(*model, {.rank = 4, .targets = {"v_proj", "attn_q"}}, 0, parameters).value();
  parameters.flatten();
  adapters.bind(parameters);
  EXPECT_EQ(parameters.size(), 2u * 2 * 2);
  EXPECT_TRUE(parameters.contains("blk.1.attn_v.lora_b"));
  EXPECT_EQ(parameters.element_count(), 2 * (4 * 32 + 4 * 32 + 4 * 32 + 4 * 16));
  const LoraGroup& qkv = adapters.group(1, LinearGroup::kQkv);
  ASSERT_EQ(qkv.members.size(), 2u);
  EXPECT_EQ(qkv.members[1].out_begin, 48);
  EXPECT_EQ(qkv.slice(32, 64).members.size(), 1u);
  EXPECT_EQ(qkv.slice(32, 48).members.size(), 0u);
  EXPECT_TRUE(adapters.group(0, LinearGroup::kUp).empty());
}

}  // namespace
}  // namespace tailor::tune::decoder
