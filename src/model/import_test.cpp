#include "model/import.h"

#include <gtest/gtest.h>

#include <functional>

#include "core/json.h"
#include "model/file_hash.h"
#include "model/gguf_file.h"
#include "model/llama_runtime.h"
#include "model/model_weights.h"
#include "model/test_support.h"

namespace tailor {
namespace {

namespace fs = std::filesystem;
using testing::expect_error;

/// A BERT of two layers, eight dimensions and ten tokens, complete enough to be imported.
class TinyBert {
 public:
  explicit TinyBert(fs::path dir) : dir_(std::move(dir)) {
    config = {{"architectures", {"BertModel"}}, {"model_type", "bert"},
              {"hidden_act", "gelu"},           {"hidden_size", 8},
              {"num_hidden_layers", 2},         {"num_attention_heads", 2},
              {"intermediate_size", 16},        {"max_position_embeddings", 12},
              {"type_vocab_size", 2},           {"vocab_size", 10},
              {"layer_norm_eps", 1e-12}};
    add("embeddings.word_embeddings.weight", {10, 8});
    add("embeddings.position_embeddings.weight", {12, 8});
    add("embeddings.token_type_embeddings.weight", {2, 8});
    norm("embeddings.LayerNorm");
    for (int i = 0; i < 2; ++i) {
      const std::string p = "encoder.layer." + std::to_string(i) + ".";
      for (const char* n :
           {"attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"}) {
        linear(p + n, 8, 8);
      }
      norm(p + "attention.output.LayerNorm");
      linear(p + "intermediate.dense", 16, 8);
      linear(p + "output.dense", 8, 16);
      norm(p + "output.LayerNorm");
    }
    vocabulary = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\nb\n##a\n##b\n.\n";
  }
  struct Tensor {
    std::vector<std::int64_t> shape;
    std::vector<float> values;
    std::string type = "F32";
  };
  Json config;
  std::string vocabulary;
  std::map<std::string, Tensor> tensors;

  fs::path write() const {
    write_json_atomic(dir_ / "config.json", config).value();
    if (!vocabulary.empty()) write_file_atomic(dir_ / "vocab.txt", vocabulary).value();
    std::vector<SafeTensor> out;
    for (const auto& [name, t] : tensors) {
      out.push_back({name, t.type, t.shape, {reinterpret_cast<const char*>(t.values.data()), t.values.size() * 4}});
    }
    write_safetensors(dir_ / "model.safetensors", out).value();
    return dir_;
  }
  void rename(const std::function<std::string(std::string)>& f) {
    std::map<std::string, Tensor> renamed;
    for (auto& [name, t] : tensors) renamed[f(name)] = std::move(t);
    tensors = std::move(renamed);
  }

 private:
  void add(const std::string& name, std::vector<std::int64_t> shape) {
    std::int64_t n = 1;
    for (const auto d : shape) n *= d;
    Tensor t{std::move(shape), {}, "F32"};
    for (std::int64_t i = 0; i < n; ++i) t.values.push_back(static_cast<float>(++counter_) * 0.25f);
    tensors[name] = std::move(t);
  }
  void linear(const std::string& name, std::int64_t out, std::int64_t in) {
    add(name + ".weight", {out, in});
    add(name + ".bias", {out});
  }
  void norm(const std::string& name) {
    add(name + ".weight", {8});
    add(name + ".bias", {8});
  }
  fs::path dir_;
  int counter_ = 0;
};

class ImportTest : public ::testing::Test {
 protected:
  Status import() { return import_hugging_face(bert_.write(), out_); }
  void refuses(const std::string& part, ErrorCode code = ErrorCode::kInvalidArgument) {
    expect_error(import(), code, part);
    EXPECT_FALSE(fs::exists(out_));
  }
  TemporaryDirectory dir_{"import-test"};
  TemporaryDirectory other_{"import-test-out"};
  fs::path out_ = other_.path() / "m.gguf";
  TinyBert bert_{dir_.path()};
};

TEST_F(ImportTest, KeepsEveryValueAndLoadsInLlama) {
  ASSERT_TRUE(import());
  const auto file = GgufFile::open(out_).value();
  EXPECT_EQ(file.architecture().value(), "bert");
  EXPECT_EQ(file.integer("bert.block_count").value(), 2);
  EXPECT_EQ(file.integer("bert.context_length").value(), 12);
  EXPECT_EQ(file.tensors().size(), bert_.tensors.size());
  EXPECT_EQ(file.tensor("blk.1.ffn_down.weight")->shape, (std::vector<std::uint64_t>{16, 8}));
  EXPECT_EQ(file.tensor_f32("blk.1.ffn_down.weight").value(),
            bert_.tensors["encoder.layer.1.output.dense.weight"].values);
  EXPECT_EQ(file.tensor_f32("token_embd.weight").value(), bert_.tensors["embeddings.word_embeddings.weight"].values);
  const auto tokens = file.find("tokenizer.ggml.tokens")->as_strings().value();
  EXPECT_EQ(tokens[0], "[PAD]");
  EXPECT_EQ(tokens[5],
            "\xE2\x96\x81"
            "a");
  EXPECT_EQ(tokens[7], "a");
  EXPECT_EQ(file.integer("tokenizer.ggml.cls_token_id").value(), 2);
  EXPECT_TRUE(load_llama_model(out_, {.vocab_only = true}));
  EXPECT_TRUE(load_llama_model(out_));
}

TEST_F(ImportTest, AcceptsPrefixedAndOldNamesAndHeads) {
  bert_.rename([](std::string name) {
    if (const auto at = name.find("LayerNorm.weight"); at != std::string::npos) name.replace(at, 16, "LayerNorm.gamma");
    if (const auto at = name.find("LayerNorm.bias"); at != std::string::npos) name.replace(at, 14, "LayerNorm.beta");
    return "bert." + name;
  });
  bert_.tensors["bert.pooler.dense.weight"] = {{8, 8}, std::vector<float>(64)};
  bert_.tensors["cls.predictions.bias"] = {{10}, std::vector<float>(10)};
  bert_.tensors["bert.embeddings.position_ids"] = {{12}, std::vector<float>(12), "I32"};
  bert_.config["architectures"] = {"BertForMaskedLM"};
  ASSERT_TRUE(import());
  EXPECT_EQ(GgufFile::open(out_).value().tensor_f32("token_embd_norm.bias").value(),
            bert_.tensors["bert.embeddings.LayerNorm.beta"].values);
}

TEST_F(ImportTest, SentenceTransformersSettings) {
  fs::create_directory(dir_.path() / "1_Pooling");
  const auto settings = [&](const Json& pooling) {
    write_json_atomic(dir_.path() / "modules.json",
                      Json{{{"type", "sentence_transformers.models.Transformer"}, {"path", ""}},
                           {{"type", "sentence_transformers.models.Pooling"}, {"path", "1_Pooling"}},
                           {{"type", "sentence_transformers.models.Normalize"}, {"path", "2_Normalize"}}})
        .value();
    write_json_atomic(dir_.path() / "1_Pooling" / "config.json", pooling).value();
    write_json_atomic(dir_.path() / "sentence_bert_config.json", Json{{"max_seq_length", 256}}).value();
    return import();
  };
  ASSERT_TRUE(settings(Json{{"pooling_mode_cls_token", true}, {"pooling_mode_mean_tokens", false}}));
  const auto file = GgufFile::open(out_).value();
  EXPECT_EQ(file.integer("bert.pooling_type").value(), 2);
  EXPECT_EQ(file.integer("tailor.max_sequence_length").value(), 12);  // no more than there are positions
  EXPECT_TRUE(*file.find("tailor.normalize")->as_bool());
  fs::remove(out_);
  expect_error(settings(Json{{"pooling_mode_max_tokens", true}}), ErrorCode::kInvalidArgument, "pooling");
  expect_error(settings(Json{{"pooling_mode_cls_token", true}, {"pooling_mode_mean_tokens", true}}),
               ErrorCode::kInvalidArgument, "exactly one");
  write_json_atomic(dir_.path() / "modules.json", Json{{{"type", "x.Pooling"}, {"path", "../1_Pooling"}}}).value();
  refuses("leads out of the directory");
  write_json_atomic(dir_.path() / "modules.json", Json{{{"type", "sentence_transformers.models.Dense"}, {"path", "3"}}})
      .value();
  refuses("Dense");
}

TEST_F(ImportTest, RefusesOtherModels) {
  bert_.config["model_type"] = "mpnet";
  bert_.config["architectures"] = {"MPNetModel"};
  refuses("the architecture is MPNetModel (model type 'mpnet'), which cannot be imported");
  bert_.config["model_type"] = "roberta";
  bert_.config["architectures"] = {"BertModel"};
  refuses("the architecture is BertModel (model type 'roberta'), which cannot be imported");
  bert_.config["model_type"] = "mamba";
  refuses("'mamba'");
  bert_.config["model_type"] = "bert";
  bert_.config["architectures"] = {"BertModel"};
  bert_.config["hidden_act"] = "relu";
  refuses("hidden_act is 'relu'");
  bert_.config["hidden_act"] = "gelu";
  bert_.config["position_embedding_type"] = "relative_key";
  refuses("relative_key");
  bert_.config.erase("position_embedding_type");
  bert_.config["is_decoder"] = true;
  refuses("is_decoder");
}

TEST_F(ImportTest, RefusesBadConfigurations) {
  for (const char* key : {"hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size",
                          "max_position_embeddings", "type_vocab_size", "vocab_size"}) {
    const Json kept = bert_.config[key];
    for (const Json& wrong : {Json(0), Json(-1), Json("8"), Json(1.5), Json(1e18), Json(nullptr)}) {
      bert_.config[key] = wrong;
      refuses(key);
    }
    bert_.config.erase(key);
    refuses("is missing");
    bert_.config[key] = kept;
  }
  bert_.config["num_attention_heads"] = 3;
  refuses("not a multiple");
  bert_.config["num_attention_heads"] = 2;
  bert_.config["layer_norm_eps"] = -1;
  refuses("layer_norm_eps");
  bert_.config = Json::array();
  refuses("not a JSON object");
}

TEST_F(ImportTest, RefusesBadWeights) {
  auto kept = bert_.tensors;
  bert_.tensors.erase("encoder.layer.1.output.dense.bias");
  refuses("'encoder.layer.1.output.dense.bias' is missing", ErrorCode::kCorruptData);
  bert_.tensors = kept;
  bert_.tensors["encoder.layer.0.output.dense.weight"].shape = {16, 8};
  refuses("has shape [16, 8], config.json needs [8, 16]", ErrorCode::kCorruptData);
  bert_.tensors = kept;
  bert_.tensors["encoder.layer.2.output.dense.weight"] = kept["encoder.layer.0.output.dense.weight"];
  refuses("is not part of the model", ErrorCode::kCorruptData);
  bert_.tensors = kept;
  bert_.tensors["embeddings.LayerNorm.bias"].type = "I32";
  refuses("expected floating point", ErrorCode::kCorruptData);
}

TEST_F(ImportTest, RefusesBadVocabularies) {
  const std::string kept = bert_.vocabulary;
  bert_.vocabulary = kept + "extra\n";
  refuses("the model has 10 embedding rows");
  bert_.vocabulary = "[PAD]\n[UNK]\n[CLS]\na\n";
  refuses("no sep_token");
  bert_.vocabulary =
      "[PAD]\n[UNK]\n[CLS]\n[SEP]\n\xE2\x96\x81"
      "a\na\n##\xE2\x96\x81"
      "a\n";
  refuses("cannot be told from another");
  bert_.vocabulary = kept;
  bert_.write();
  fs::remove(dir_.path() / "vocab.txt");
  bert_.vocabulary.clear();
  refuses("neither tokenizer.json nor vocab.txt", ErrorCode::kNotFound);
  write_json_atomic(dir_.path() / "tokenizer.json", Json{{"model", {{"type", "BPE"}}}}).value();
  refuses("the tokenizer is BPE");
  write_json_atomic(dir_.path() / "tokenizer.json", Json{{"model", {{"type", 3}}}}).value();
  refuses("wrong type");
}

TEST_F(ImportTest, ShortVocabulariesAreFilledUp) {
  bert_.vocabulary = "[PAD]\n[UNK]\n[CLS]\n[SEP]\r\na";
  ASSERT_TRUE(import());
  const auto file = GgufFile::open(out_).value();
  EXPECT_EQ(file.find("tokenizer.ggml.tokens")->as_strings().value()[9], "\xE2\x96\x81[PAD9]");
  EXPECT_EQ(file.find("tokenizer.ggml.token_type")->as_integers().value()[9], 5);
}

TEST_F(ImportTest, OfRepeatedTokensTheLastCounts) {
  bert_.vocabulary = "[PAD]\n[UNK]\n[CLS]\n[SEP]\na\nb\na\n";
  ASSERT_TRUE(import());
  const auto file = GgufFile::open(out_).value();
  const auto tokens = file.find("tokenizer.ggml.tokens")->as_strings().value();
  EXPECT_EQ(tokens[4], "\xE2\x96\x81[PAD4]");
  EXPECT_EQ(tokens[6],
            "\xE2\x96\x81"
            "a");
  EXPECT_TRUE(load_llama_model(out_, {.vocab_only = true}));
}

TEST_F(ImportTest, CachesByContent) {
  bert_.write();
  const auto first = import_cached(dir_.path(), other_.path() / "cache").value();
  const auto time = fs::last_write_time(first);
  EXPECT_EQ(import_cached(dir_.path(), other_.path() / "cache").value(), first);
  EXPECT_EQ(fs::last_write_time(first), time);
  EXPECT_NE(import_cached(dir_.path(), other_.path() / "cache", {.type = ImportType::kF16}).value(), first);
  bert_.tensors["embeddings.LayerNorm.bias"].values[0] = 99.0f;
  bert_.write();
  EXPECT_NE(import_cached(dir_.path(), other_.path() / "cache").value(), first);
  expect_error(import_cached(other_.path(), other_.path() / "cache"), ErrorCode::kNotFound, "no config.json");
}

TEST(Import, MiniLmValuesAreExactInF32) {
  const TemporaryDirectory dir("import-minilm");
  const auto out = dir.path() / "m.gguf";
  int steps = 0;
  ASSERT_TRUE(import_hugging_face(testing::minilm_dir(), out, {}, [&](const Progress&) { ++steps; }));
  EXPECT_EQ(steps, 101);
  const auto source = ModelWeights::open(testing::minilm_dir()).value();
  const auto file = GgufFile::open(out).value();
  EXPECT_EQ(file.tensors().size(), 101u);
  EXPECT_EQ(file.integer("bert.pooling_type").value(), 1);
  EXPECT_EQ(file.integer("tailor.max_sequence_length").value(), 256);
  EXPECT_EQ(file.string("general.license").value(), "apache-2.0");
  const std::pair<const char*, const char*> pairs[] = {
      {"token_embd.weight", "embeddings.word_embeddings.weight"},
      {"position_embd.weight", "embeddings.position_embeddings.weight"},
      {"token_types.weight", "embeddings.token_type_embeddings.weight"},
      {"blk.5.attn_k.bias", "encoder.layer.5.attention.self.key.bias"},
      {"blk.3.attn_output_norm.weight", "encoder.layer.3.attention.output.LayerNorm.weight"},
      {"blk.0.ffn_up.weight", "encoder.layer.0.intermediate.dense.weight"}};
  for (const auto& [target, name] : pairs) {
    EXPECT_EQ(file.tensor(target)->bytes, source.find(name)->bytes) << target;
  }
  // llama.cpp reads the same file.
  EXPECT_TRUE(load_llama_model(out));
}

TEST(Import, MiniLmInNarrowTypes) {
  const TemporaryDirectory dir("import-minilm");
  for (const auto& [type, stored, tolerance] : {std::tuple{ImportType::kF16, TensorType::kF16, 1e-3f},
                                                std::tuple{ImportType::kQ8_0, TensorType::kQ8_0, 2e-2f}}) {
    const auto out = dir.path() / "m.gguf";
    ASSERT_TRUE(import_hugging_face(testing::minilm_dir(), out, {.type = type}));
    const auto file = GgufFile::open(out).value();
    EXPECT_EQ(file.tensor("blk.0.attn_q.weight")->type, stored);
    EXPECT_EQ(file.tensor("position_embd.weight")->type, TensorType::kF32);
    EXPECT_EQ(file.tensor("blk.0.attn_q.bias")->type, TensorType::kF32);
    const auto source = ModelWeights::open(testing::minilm_dir()).value();
    const auto exact = to_f32(*source.find("encoder.layer.0.attention.self.query.weight"));
    const auto values = file.tensor_f32("blk.0.attn_q.weight").value();
    float worst = 0;
    for (std::size_t i = 0; i < exact.size(); ++i) worst = std::max(worst, std::abs(exact[i] - values[i]));
    EXPECT_LT(worst, tolerance);
    EXPECT_GT(worst, 0.0f);
    EXPECT_TRUE(load_llama_model(out));
  }
}

}  // namespace
}  // namespace tailor
