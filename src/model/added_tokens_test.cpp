// Tokens that are added to a decoder, against transformers: tests/golden/added_tokens_golden.py.

#include "model/added_tokens.h"

#include <gtest/gtest.h>

#include "core/safetensors.h"
#include "model/export_hugging_face.h"
#include "model/import.h"
#include "model/test_decoder_family.h"
#include "model/tokenizer.h"

namespace tailor {
namespace {

namespace fs = std::filesystem;
using testing::expect_error;
using testing::TinyDecoder;

class AddedTokens : public ::testing::Test {
 protected:
  void import(const TinyDecoder& model, ImportType type = ImportType::kF32) {
    fs::remove_all(in_);
    model.write(in_);
    import_hugging_face(in_, base_, {.type = type}).value();
  }
  /// Transformers' ids. Of a SentencePiece vocabulary the added tokens alone: llama.cpp begins what follows one with a
  /// blank piece, in training as in serving.
  void expect_ids(std::vector<std::int32_t> seen, const std::string& kind, std::size_t text) {
    auto expected = golden_["ids"][kind][text].get<std::vector<std::int32_t>>();
    if (kind == "pieces") {
      for (auto* ids : {&seen, &expected}) std::erase_if(*ids, [](std::int32_t id) { return id < 620; });
    }
    EXPECT_EQ(seen, expected) << kind << ": " << golden_["texts"][text];
  }
  std::vector<float> row(const fs::path& gguf, const char* table, std::size_t token) {
    const GgufFile file = GgufFile::open(gguf).value();
    return rows_to_f32(*file.tensor(table), token, 1).value();
  }
  const Json golden_ = read_json(testing::golden("added_tokens.json")).value();
  TemporaryDirectory dir_{"added-tokens"};
  fs::path in_ = dir_.path() / "m", base_ = dir_.path() / "m.gguf", out_ = dir_.path() / "grown.gguf";
};

/// A tiny GPT-2 with the vocabularies of tests/golden/decoder_tokenizer_golden.py.
TinyDecoder with_tokenizer(const std::string& kind, std::int64_t rows) {
  const Json reference = read_json(testing::golden("decoder_tokenizer.json")).value();
  TinyDecoder model("gpt2");
  model.files.erase("tokenizer.json");
  model.files.erase("tokenizer_config.json");
  model.files["config.json"]["vocab_size"] = rows;
  for (const char* id : {"bos_token_id", "eos_token_id", "pad_token_id"}) model.files["config.json"].erase(id);
  model.tensors["transformer.wte.weight"] = {{rows, 32}, std::vector<float>(static_cast<std::size_t>(rows) * 32, 0.5f)};
  if (kind == "byte_level") {
    Json& tokenizer = model.files["tokenizer.json"] = reference["byte_level"]["tokenizer"];
    tokenizer["pre_tokenizer"] = reference["byte_level"]["cases"]["gpt-2"]["pre_tokenizer"];
  } else {
    for (const auto& [name, json] : reference["pieces"]["llama"]["files"].items()) model.files[name] = json;
  }
  return model;
}

// 701 and 620 tokens are there. With as many rows the table grows, with 710 the rows that filled it up are used.
TEST_F(AddedTokens, AreReadAsByTransformers) {
  const auto tokens = golden_["tokens"].get<std::vector<std::string>>();
  for (const auto& [kind, known] : {std::pair{"byte_level", 701}, {"pieces", 620}}) {
    for (const int rows : {known, 710}) {
      import(with_tokenizer(kind, rows));
      const std::vector<std::int32_t> ids = add_tokens(base_, tokens, out_).value();
      ASSERT_EQ(ids.size(), tokens.size());
      for (std::size_t i = 0; i < ids.size(); ++i) EXPECT_EQ(ids[i], known + static_cast<int>(i));
      const GgufFile file = GgufFile::open(out_).value();
      EXPECT_EQ(file.tensor("token_embd.weight")->shape[1], static_cast<std::size_t>(std::max(rows, known + 4)));
      const Tokenizer tokenizer = Tokenizer::load(out_).value();
      for (std::size_t i = 0; i < golden_["texts"].size(); ++i) {
        const auto text = golden_["texts"][i].get<std::string>();
        expect_ids(tokenizer.encode(text, true), kind, i);
        EXPECT_EQ(tokenizer.encode(text, true, true), tokenizer.encode(text, true)) << text;
      }
      for (std::size_t i = 0; i < ids.size(); ++i) EXPECT_EQ(tokenizer.decode({&ids[i], 1}), tokens[i]);
      // Once more: they keep their ids, and nothing grows.
      EXPECT_EQ(add_tokens(out_, tokens, dir_.path() / "twice.gguf").value(), ids);
      EXPECT_EQ(GgufFile::open(dir_.path() / "twice.gguf").value().tensor("token_embd.weight")->shape[1],
                file.tensor("token_embd.weight")->shape[1]);
    }
  }
}

TEST_F(AddedTokens, NewRowsBeginAtTheMean) {
  for (const auto& [name, item] : golden_["models"].items()) {
    EXPECT_LT(item["from_the_mean"].get<double>(), 1e-4) << "transformers adds a little noise";
    for (const ImportType type : {ImportType::kF32, ImportType::kF16, ImportType::kQ8_0}) {
      const TinyDecoder model(name);
      import(model, type);
      const GgufFile before = GgufFile::open(base_).value();
      const auto ids = add_tokens(base_, {"<a>", "<b>", "<c>"}, out_).value();
      const auto known = static_cast<std::size_t>(ids[0]);  // behind them only rows that fill the table up
      const GgufFile after = GgufFile::open(out_).value();
      EXPECT_EQ(after.tensor("output.weight") == nullptr, item["tied"].get<bool>());
      for (const char* table : {"token_embd.weight", "output.weight"}) {
        if (after.tensor(table) == nullptr) continue;
        EXPECT_EQ(after.tensor(table)->type, before.tensor(table)->type);
        const std::vector<float> all = before.tensor_f32(table).value();
        const std::size_t width = before.tensor(table)->shape[0];
        const std::size_t kept = known * before.tensor(table)->bytes.size() / before.tensor(table)->shape[1];
        EXPECT_TRUE(after.tensor(table)->bytes.substr(0, kept) == before.tensor(table)->bytes.substr(0, kept)) << name;
        for (const std::int32_t id : ids) {
          const std::vector<float> fresh = row(out_, table, static_cast<std::size_t>(id));
          for (std::size_t i = 0; i < width; ++i) {
            double mean = 0;
            for (std::size_t r = 0; r < known; ++r) mean += all[r * width + i] / static_cast<double>(known);
            EXPECT_NEAR(fresh[i], mean,
                        type == ImportType::kF32   ? 1e-6
                        : type == ImportType::kF16 ? 1e-4
                                                   : 5e-3)
                << name << " " << table;
          }
        }
      }
    }
  }
}

// The directory that is made of it has the tokens: tokenizer.json, config.json, and it can be imported again.
TEST_F(AddedTokens, TheHuggingFaceDirectoryHasThem) {
  for (const char* kind : {"byte_level", "pieces"}) {
    import(with_tokenizer(kind, kind == std::string("pieces") ? 620 : 701));
    const auto tokens = golden_["tokens"].get<std::vector<std::string>>();
    const auto ids = add_tokens(base_, tokens, out_).value();
    const fs::path made = dir_.path() / (std::string("hf-") + kind);
    export_hugging_face(out_, made).value();
    const Json config = read_json(made / "config.json").value();
    EXPECT_EQ(config["vocab_size"], GgufFile::open(out_).value().tensor("token_embd.weight")->shape[1]);
    const Json tokenizer = read_json(made / "tokenizer.json").value();
    for (std::size_t t = 0; t < tokens.size(); ++t) {
      bool there = false;
      for (const Json& one : tokenizer["added_tokens"])
        there |= one["content"] == tokens[t] && one["id"] == ids[t] && one["special"] == false;
      EXPECT_TRUE(there) << tokens[t];
    }
    import_hugging_face(made, dir_.path() / "again.gguf").value();
    const Tokenizer again = Tokenizer::load(dir_.path() / "again.gguf").value();
    for (std::size_t i = 0; i < golden_["texts"].size(); ++i) {
      expect_ids(again.encode(golden_["texts"][i].get<std::string>(), true), kind, i);
    }
  }
}

TEST_F(AddedTokens, SaysWhatIsWrong) {
  import(with_tokenizer("byte_level", 701));
  const auto refuses = [&](const std::vector<std::string>& tokens, const std::string& part) {
    expect_error(add_tokens(base_, tokens, out_), ErrorCode::kInvalidArgument, part);
    EXPECT_FALSE(fs::exists(out_));
  };
  refuses({""}, "it is empty");
  refuses({"<a b>"}, "it holds a blank");
  refuses({"<a>", "<a>"}, "it is given twice");
  refuses({"\xFF"}, "it is not UTF-8");
  refuses({"<|im_end|>"}, "it is a control token of the model");
  refuses({"a"}, "the model has it already");
  EXPECT_EQ(add_tokens(base_, {"<tool>"}, out_).value(), (std::vector<std::int32_t>{700})) << "was added before";
}

}  // namespace
}  // namespace tailor
