#include "model/import_decoder_tokens.h"

#include <gtest/gtest.h>

#include "model/export_hugging_face.h"
#include "model/import.h"
#include "model/sentencepiece_model.h"
#include "model/test_decoder_family.h"
#include "model/tokenizer.h"

namespace tailor {
namespace {

namespace fs = std::filesystem;
using testing::expect_error;
using testing::TinyDecoder;
using Ids = std::vector<std::vector<std::int32_t>>;

const Json& reference() {
  static const Json json = read_json(testing::golden("decoder_tokenizer.json")).value();
  return json;
}

/// Of a case: its own, or the one that most share.
const Json& tokenizer_of(const Json& item) {
  return item.contains("tokenizer") ? item["tokenizer"] : reference()["byte_level"]["tokenizer"];
}

std::string base64(const std::string& text) {
  std::string out;
  std::uint32_t bits = 0;
  int count = 0;
  for (const char c : text) {
    const std::string_view letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const std::size_t at = letters.find(c);
    if (at == std::string_view::npos) break;
    bits = bits << 6 | static_cast<std::uint32_t>(at);
    count += 6;
    if (count >= 8) {
      count -= 8;
      out += static_cast<char>(bits >> count & 0xFF);
    }
  }
  return out;
}

/// A tiny GPT-2 with another vocabulary.
class DecoderTokens : public ::testing::Test {
 protected:
  DecoderTokens() : model_("gpt2") {
    model_.files.erase("tokenizer.json");
    model_.files.erase("tokenizer_config.json");
    model_.files["config.json"]["vocab_size"] = 720;
    model_.files["config.json"].erase("bos_token_id");
    model_.files["config.json"].erase("eos_token_id");
    model_.files["config.json"].erase("pad_token_id");
    model_.tensors["transformer.wte.weight"] = {{720, 32}, std::vector<float>(720 * 32)};
  }
  Status import() {
    fs::remove_all(in_);
    model_.write(in_);
    return import_hugging_face(in_, out_);
  }
  Ids ids(bool add_special = true) {
    import().value();
    return encode(out_, add_special);
  }
  static Ids encode(const fs::path& gguf, bool add_special) {
    const Tokenizer tokenizer = Tokenizer::load(gguf).value();
    Ids all;
    for (const Json& text : reference()["texts"]) {
      all.push_back(tokenizer.encode(text.get<std::string>(), add_special, true));
    }
    return all;
  }
  void expect_ids(const Ids& seen, const Json& expected, const std::string& what) {
    for (std::size_t i = 0; i < seen.size(); ++i) {
      EXPECT_EQ(seen[i], expected[i].get<std::vector<std::int32_t>>()) << what << ": " << reference()["texts"][i];
    }
  }
  void refuses(const std::string& part, ErrorCode code = ErrorCode::kInvalidArgument) {
    expect_error(import(), code, part);
  }
  TinyDecoder model_;
  TemporaryDirectory dir_{"decoder-tokens"};
  fs::path in_ = dir_.path() / "m", out_ = dir_.path() / "m.gguf";
};

TEST_F(DecoderTokens, ByteLevelUnderEveryPreTokenizer) {
  for (const auto& [name, item] : reference()["byte_level"]["cases"].items()) {
    Json& tokenizer = model_.files["tokenizer.json"] = tokenizer_of(item);
    tokenizer["pre_tokenizer"] = item["pre_tokenizer"];
    tokenizer["model"]["ignore_merges"] = item["ignore_merges"];
    expect_ids(ids(), item["ids"], name);
    EXPECT_EQ(GgufFile::open(out_).value().string("tokenizer.ggml.pre").value(), name);
  }
}

TEST_F(DecoderTokens, SentencePieceModel) {
  model_.texts["tokenizer.model"] = base64(reference()["pieces"]["model"].get<std::string>());
  expect_ids(ids(false), reference()["pieces"]["ids"], "tokenizer.model");
  const GgufFile file = GgufFile::open(out_).value();
  EXPECT_EQ(file.string("tokenizer.ggml.model").value(), "llama");
  EXPECT_EQ(file.integer("tokenizer.ggml.bos_token_id").value(), 1);
  EXPECT_EQ(file.find("tokenizer.ggml.add_bos_token")->as_bool(), true);
  EXPECT_EQ(file.find("tokenizer.ggml.token_type")->as_integers().value()[0], 2);
}

TEST_F(DecoderTokens, SentencePieceFromTokenizerJson) {
  const Json& llama = reference()["pieces"]["llama"];
  for (const auto& [name, json] : llama["files"].items()) model_.files[name] = json;
  expect_ids(ids(), llama["ids"], "tokenizer.json");
  model_.texts["tokenizer.model"] = base64(reference()["pieces"]["model"].get<std::string>());
  expect_ids(ids(), llama["ids"], "both");
}

/// tokenizer.json made from the vocabulary alone gives the same ids when it is imported again.
TEST_F(DecoderTokens, MadeAgainFromTheVocabulary) {
  const auto again = [&](const Ids& expected, const std::string& what) {
    const TokenizerFiles files = tokenizer_files(GgufFile::open(out_).value()).value();
    model_.texts.clear();
    model_.files["tokenizer.json"] = files.tokenizer;
    model_.files["tokenizer_config.json"] = files.settings;
    EXPECT_EQ(ids(), expected) << what;
  };
  for (const auto& [name, item] : reference()["byte_level"]["cases"].items()) {
    Json& tokenizer = model_.files["tokenizer.json"] = tokenizer_of(item);
    tokenizer["pre_tokenizer"] = item["pre_tokenizer"];
    tokenizer["model"]["ignore_merges"] = item["ignore_merges"];
    if (name == "qwen2") tokenizer["normalizer"] = {{"type", "NFC"}};  // as all its models have it
    again(ids(), name);
  }
  model_.files.erase("tokenizer.json");
  model_.files.erase("tokenizer_config.json");
  model_.texts["tokenizer.model"] = base64(reference()["pieces"]["model"].get<std::string>());
  again(ids(), "pieces");
}

TEST_F(DecoderTokens, SpecialTokensAndTemplates) {
  Json& tokenizer = model_.files["tokenizer.json"] = reference()["byte_level"]["tokenizer"];
  tokenizer["normalizer"] = {{"type", "NFC"}};
  tokenizer["post_processor"] = {
      {"type", "TemplateProcessing"},
      {"single", Json::array({Json{{"SpecialToken", {{"id", "<|im_start|>"}, {"type_id", 0}}}},
                              Json{{"Sequence", {{"id", "A"}, {"type_id", 0}}}}})}};
  model_.files["tokenizer_config.json"] = {
      {"eos_token", {{"content", "<|im_end|>"}}},
      {"chat_template", Json::array({Json{{"name", "tool_use"}, {"template", "x"}},
                                     Json{{"name", "default"}, {"template", "{{ bos_token }}"}}})}};
  import().value();
  const GgufFile file = GgufFile::open(out_).value();
  EXPECT_EQ(file.integer("tokenizer.ggml.bos_token_id").value(), 1);
  EXPECT_EQ(file.integer("tokenizer.ggml.eos_token_id").value(), 2);
  EXPECT_EQ(file.find("tokenizer.ggml.add_bos_token")->as_bool(), true);
  EXPECT_EQ(file.string("tokenizer.chat_template").value(), "{{ bos_token }}");
  EXPECT_EQ(file.string("tokenizer.chat_template.tool_use").value(), "x");
  EXPECT_EQ(file.find("tokenizer.chat_templates")->as_strings(), std::vector<std::string_view>{"tool_use"});
  const Tokenizer t = Tokenizer::load(out_).value();
  EXPECT_EQ(t.encode("e\u0301", true), t.encode("\u00e9", true));  // composed
  EXPECT_EQ(t.encode("a", true)[0], 1);
  EXPECT_FALSE(t.is_control(703));
  model_.files["tokenizer_config.json"]["bos_token"] = "<|endoftext|>";
  refuses("neither BOS nor EOS");
}

TEST_F(DecoderTokens, RefusesOthersByName) {
  refuses("holds neither tokenizer.json nor tokenizer.model", ErrorCode::kNotFound);
  const Json kept = reference()["byte_level"]["tokenizer"];
  Json& t = model_.files["tokenizer.json"] = kept;
  t["pre_tokenizer"] = {{"type", "Whitespace"}};
  refuses("the pre-tokenizer {\"type\":\"Whitespace\"} is not one that Tailor knows");
  t = kept;
  t["model"]["ignore_merges"] = true;
  refuses("no pre-tokenizer of this pattern with ignore_merges true");
  t = kept;
  t["normalizer"] = {{"type", "Lowercase"}};
  refuses("the normaliser is {\"type\":\"Lowercase\"}");
  t = kept;
  t["model"]["type"] = "Unigram";
  refuses("the tokenizer is \"Unigram\"");
  t = kept;
  t["model"]["merges"].push_back({"q", "~"});
  refuses("does not fit the vocabulary", ErrorCode::kCorruptData);
  t = kept;
  t["model"]["vocab"]["far"] = 720;
  refuses("the model has 720 embedding rows");
  t = kept;
  t["model"]["vocab"] = 3;
  refuses("the model has no vocabulary");
  t = reference()["pieces"]["llama"]["files"]["tokenizer.json"];
  t["model"]["merges"].erase(0);
  refuses("which scores cannot express");
  t = reference()["pieces"]["llama"]["files"]["tokenizer.json"];
  t["pre_tokenizer"] = {{"type", "Whitespace"}};
  refuses("the pre-tokenizer is");
}

TEST_F(DecoderTokens, DamagedSentencePieceModels) {
  const std::string whole = base64(reference()["pieces"]["model"].get<std::string>());
  model_.texts["tokenizer.model"] = "not a model";
  refuses("not a SentencePiece model", ErrorCode::kCorruptData);
  for (std::size_t size = 1; size < whole.size(); size += 97) {
    write_file_atomic(dir_.path() / "t.model", whole.substr(0, size)).value();
    const auto model = read_sentencepiece_model(dir_.path() / "t.model");  // an error or fewer pieces, never a crash
    EXPECT_TRUE(!model || model->pieces.size() <= 720u);
  }
}

}  // namespace
}  // namespace tailor
