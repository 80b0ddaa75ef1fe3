#include "tune/whole_modules.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace tailor::tune::decoder {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

DecoderConfig config_of(const char* architecture) {
  DecoderConfig config;
  config.architecture = architecture;
  config.vocab = 100;
  config.hidden = 8;
  config.heads = config.kv_heads = 2;
  config.head_dim = 4;
  return config;
}

TEST(WholeModules, AreNamedAsEveryFamilyNamesThem) {
  const auto words = [](const char* architecture, const char* name) {
    const auto found = whole_modules(config_of(architecture), false, {name}).value();
    return found.size() == 1 ? found[0].tensor + " " + found[0].hugging_face.front() : "";
  };
  EXPECT_EQ(words("llama", "embed_tokens"), "token_embd.weight model.embed_tokens");
  EXPECT_EQ(words("llama", "lm_head"), "output.weight lm_head");
  EXPECT_EQ(words("qwen2", "model.embed_tokens"), "token_embd.weight model.embed_tokens");
  EXPECT_EQ(words("gpt2", "wte"), "token_embd.weight transformer.wte");
  EXPECT_EQ(words("gptneox", "embed_out"), "output.weight embed_out");
  EXPECT_EQ(words("bloom", "token_embd"), "token_embd.weight transformer.word_embeddings");
}

TEST(WholeModules, OfATiedModelAreBoth) {
  for (const char* name : {"embed_tokens", "lm_head"}) {
    const auto found = whole_modules(config_of("llama"), true, {name}).value();
    ASSERT_EQ(found.size(), 1U);
    EXPECT_EQ(found[0].tensor, "token_embd.weight");
    EXPECT_THAT(found[0].hugging_face, ElementsAre("model.embed_tokens", "lm_head"));
  }
}

TEST(WholeModules, OthersAreRefused) {
  const auto refused = whole_modules(config_of("gptneox"), false, {"embed_in", "dense"});
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().message, HasSubstr("'dense' cannot be trained whole beside an adapter"));
  EXPECT_THAT(refused.error().hint, HasSubstr("it can hold embed_in and embed_out"));
  EXPECT_TRUE(whole_modules(config_of("gptneox"), false, {}).value().empty());
}

}  // namespace
}  // namespace tailor::tune::decoder
