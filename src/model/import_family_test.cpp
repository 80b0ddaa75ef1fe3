#include <gtest/gtest.h>

#include "core/json.h"
#include "model/gguf_file.h"
#include "model/import.h"
#include "model/llama_runtime.h"
#include "model/test_encoder_family.h"

namespace tailor {
namespace {

namespace fs = std::filesystem;
using testing::expect_error;
using testing::TinyEncoder;

class ImportFamily : public ::testing::Test {
 protected:
  Status import(const TinyEncoder& model) {
    fs::remove_all(dir_.path() / "m");
    fs::create_directory(dir_.path() / "m");
    model.write(dir_.path() / "m");
    return import_hugging_face(dir_.path() / "m", out_);
  }
  GgufFile imported(const TinyEncoder& model) {
    import(model).value();
    EXPECT_TRUE(load_llama_model(out_));
    return GgufFile::open(out_).value();
  }
  void refuses(const TinyEncoder& model, const std::string& part, ErrorCode code = ErrorCode::kInvalidArgument) {
    fs::remove(out_);
    expect_error(import(model), code, part);
    EXPECT_FALSE(fs::exists(out_));
  }
  TemporaryDirectory dir_{"import-family"};
  fs::path out_ = dir_.path() / "m.gguf";
};

void add_prefix(TinyEncoder& model, const std::string& prefix) {
  std::map<std::string, TinyEncoder::Tensor> renamed;
  for (auto& [name, tensor] : model.tensors) renamed[prefix + name] = std::move(tensor);
  model.tensors = std::move(renamed);
}

TEST_F(ImportFamily, DistilBertBecomesBert) {
  const TinyEncoder model("distilbert");
  const GgufFile file = imported(model);
  EXPECT_EQ(file.architecture().value(), "bert");
  EXPECT_EQ(file.string("tailor.source_model_type").value(), "distilbert");
  EXPECT_EQ(file.integer("bert.block_count").value(), 2);
  EXPECT_EQ(file.integer("bert.attention.head_count").value(), 4);
  EXPECT_EQ(file.integer("bert.feed_forward_length").value(), 64);
  EXPECT_EQ(file.integer("bert.context_length").value(), 48);
  EXPECT_EQ(file.integer("tokenizer.ggml.token_type_count").value(), 1);
  EXPECT_FLOAT_EQ(static_cast<float>(file.number("bert.attention.layer_norm_epsilon").value()), 1e-12f);
  EXPECT_EQ(file.tensors().size(), model.tensors.size() + 1);
  EXPECT_EQ(file.tensor_f32("token_types.weight").value(), std::vector<float>(32, 0.0f));
  const std::pair<const char*, const char*> pairs[] = {
      {"blk.0.attn_q.weight", "transformer.layer.0.attention.q_lin.weight"},
      {"blk.1.attn_k.bias", "transformer.layer.1.attention.k_lin.bias"},
      {"blk.1.attn_v.weight", "transformer.layer.1.attention.v_lin.weight"},
      {"blk.0.attn_output.weight", "transformer.layer.0.attention.out_lin.weight"},
      {"blk.0.attn_output_norm.bias", "transformer.layer.0.sa_layer_norm.bias"},
      {"blk.1.ffn_up.weight", "transformer.layer.1.ffn.lin1.weight"},
      {"blk.1.ffn_down.weight", "transformer.layer.1.ffn.lin2.weight"},
      {"blk.1.layer_output_norm.weight", "transformer.layer.1.output_layer_norm.weight"}};
  for (const auto& [target, source] : pairs) {
    EXPECT_EQ(file.tensor_f32(target).value(), model.tensors.at(source).values) << target;
  }
  const HuggingFaceSummary summary = summarize_hugging_face(dir_.path() / "m").value();
  EXPECT_EQ(summary.hidden, 32u);
  EXPECT_EQ(summary.layers, 2u);
  EXPECT_EQ(summary.positions, 48u);
  EXPECT_EQ(summary.vocabulary, 500u);
}

TEST_F(ImportFamily, DistilBertWithItsHead) {
  TinyEncoder model("distilbert");
  add_prefix(model, "distilbert.");
  model.tensors["vocab_transform.weight"] = {{2, 2}, std::vector<float>(4)};
  model.tensors["pre_classifier.bias"] = {{2}, std::vector<float>(2)};
  for (const char* name : {"DistilBertForMaskedLM", "DistilBertForSequenceClassification"}) {
    model.files["config.json"]["architectures"] = {name};
    EXPECT_TRUE(import(model)) << name;
  }
  model.tensors["distilbert.transformer.layer.2.ffn.lin1.bias"] = {{64}, std::vector<float>(64)};
  refuses(model, "is not part of the model", ErrorCode::kCorruptData);
  model.tensors.erase("distilbert.transformer.layer.2.ffn.lin1.bias");
  model.tensors.erase("distilbert.transformer.layer.1.sa_layer_norm.bias");
  refuses(model, "'transformer.layer.1.sa_layer_norm.bias' is missing", ErrorCode::kCorruptData);
}

TEST_F(ImportFamily, DistilBertOfBadSizes) {
  for (const char* key : {"dim", "n_layers", "n_heads", "hidden_dim", "max_position_embeddings", "vocab_size"}) {
    TinyEncoder model("distilbert");
    model.files["config.json"][key] = 0;
    refuses(model, key);
  }
  TinyEncoder model("distilbert");
  model.files["config.json"]["activation"] = "relu";
  refuses(model, "activation is 'relu'");
}

TEST_F(ImportFamily, RobertaLosesTheRowsOfPadding) {
  TinyEncoder model("roberta");
  const GgufFile file = imported(model);
  EXPECT_EQ(file.architecture().value(), "bert");
  EXPECT_EQ(file.integer("bert.context_length").value(), 48);
  EXPECT_FLOAT_EQ(static_cast<float>(file.number("bert.attention.layer_norm_epsilon").value()), 1e-5f);
  const std::vector<float>& stored = model.tensors["embeddings.position_embeddings.weight"].values;
  EXPECT_EQ(file.tensor_f32("position_embd.weight").value(), std::vector<float>(stored.begin() + 2 * 32, stored.end()));
  EXPECT_EQ(file.string("tokenizer.ggml.model").value(), "gpt2");
  EXPECT_EQ(file.find("tokenizer.ggml.merges")->count(), 339u);
  const auto tokens = file.find("tokenizer.ggml.tokens")->as_strings().value();
  EXPECT_EQ(tokens.size(), 608u);
  EXPECT_EQ(tokens[607], "[PAD607]");
  EXPECT_EQ(file.integer("tokenizer.ggml.padding_token_id").value(), 1);
  model.files["config.json"]["max_position_embeddings"] = 2;
  refuses(model, "leaves none for a text");
  model.files["config.json"]["max_position_embeddings"] = 49;
  refuses(model, "has shape [50, 32], config.json needs [49, 32]", ErrorCode::kCorruptData);
}

TEST_F(ImportFamily, RobertaWithItsHead) {
  TinyEncoder model("roberta");
  add_prefix(model, "roberta.");
  model.tensors["lm_head.dense.weight"] = {{2, 2}, std::vector<float>(4)};
  model.files["config.json"]["architectures"] = {"RobertaForMaskedLM"};
  EXPECT_TRUE(import(model));
  model.files["config.json"]["model_type"] = "xlm-roberta";
  model.files["config.json"]["architectures"] = {"XLMRobertaModel"};
  EXPECT_TRUE(import(model));
}

TEST_F(ImportFamily, RobertaFromVocabularyAndMerges) {
  TinyEncoder model("roberta");
  const GgufFile whole = imported(model);
  model.split_tokenizer();
  const GgufFile split = imported(model);
  for (const auto& [key, value] : whole.values()) {
    if (key == "tokenizer.huggingface.json") continue;  // the file itself
    if (!key.starts_with("tokenizer.") && !key.starts_with("tailor.tokenizer.")) continue;
    if (key == "tokenizer.huggingface.json") continue;  // the file itself, which only one of the two has
    ASSERT_NE(split.find(key), nullptr) << key;
    EXPECT_EQ(split.find(key)->encoded(), value.encoded()) << key;
  }
}

TEST_F(ImportFamily, TheCacheKnowsTheMerges) {
  TinyEncoder model("roberta");
  model.split_tokenizer();
  import(model).value();
  const auto first = import_cached(dir_.path() / "m", dir_.path() / "cache").value();
  EXPECT_EQ(import_cached(dir_.path() / "m", dir_.path() / "cache").value(), first);
  model.texts["merges.txt"].resize(model.texts["merges.txt"].rfind('\n', model.texts["merges.txt"].size() - 2) + 1);
  model.write(dir_.path() / "m");
  EXPECT_NE(import_cached(dir_.path() / "m", dir_.path() / "cache").value(), first);
}

TEST_F(ImportFamily, ModernBertIsAnArchitectureOfItsOwn) {
  TinyEncoder model("modernbert");
  const GgufFile file = imported(model);
  EXPECT_EQ(file.architecture().value(), "modern-bert");
  EXPECT_EQ(file.string("tailor.source_model_type").value(), "modernbert");
  EXPECT_EQ(file.integer("modern-bert.block_count").value(), 4);
  EXPECT_EQ(file.integer("modern-bert.context_length").value(), 48);
  EXPECT_EQ(file.integer("modern-bert.feed_forward_length").value(), 64);
  EXPECT_EQ(file.integer("modern-bert.attention.sliding_window").value(), 12);
  EXPECT_EQ(file.integer("modern-bert.attention.sliding_window_pattern").value(), 3);
  EXPECT_EQ(file.number("modern-bert.rope.freq_base").value(), 160'000);
  EXPECT_EQ(file.number("modern-bert.rope.freq_base_swa").value(), 10'000);
  EXPECT_EQ(file.integer("modern-bert.pooling_type").value(), 1);
  EXPECT_EQ(file.string("tokenizer.ggml.pre").value(), "modern-bert");
  EXPECT_EQ(file.tensors().size(), model.tensors.size());
  EXPECT_EQ(file.tensor("blk.0.attn_norm.weight"), nullptr);
  const std::pair<const char*, const char*> pairs[] = {{"token_embd.weight", "embeddings.tok_embeddings.weight"},
                                                       {"token_embd_norm.weight", "embeddings.norm.weight"},
                                                       {"blk.0.attn_qkv.weight", "layers.0.attn.Wqkv.weight"},
                                                       {"blk.1.attn_norm.weight", "layers.1.attn_norm.weight"},
                                                       {"blk.1.attn_output.weight", "layers.1.attn.Wo.weight"},
                                                       {"blk.2.ffn_norm.weight", "layers.2.mlp_norm.weight"},
                                                       {"blk.2.ffn_up.weight", "layers.2.mlp.Wi.weight"},
                                                       {"blk.3.ffn_down.weight", "layers.3.mlp.Wo.weight"},
                                                       {"output_norm.weight", "final_norm.weight"}};
  for (const auto& [target, source] : pairs) {
    EXPECT_EQ(file.tensor_f32(target).value(), model.tensors.at(source).values) << target;
  }
  const HuggingFaceSummary summary = summarize_hugging_face(dir_.path() / "m").value();
  EXPECT_EQ(summary.architecture, "modern-bert");
  EXPECT_EQ(summary.positions, 48u);
  add_prefix(model, "model.");
  model.tensors["head.dense.weight"] = {{2, 2}, std::vector<float>(4)};
  model.tensors["decoder.bias"] = {{2}, std::vector<float>(2)};
  model.files["config.json"]["architectures"] = {"ModernBertForMaskedLM"};
  EXPECT_TRUE(import(model));
}

// What transformers 4 writes.
TEST_F(ImportFamily, ModernBertUnderItsOlderNames) {
  TinyEncoder model("modernbert");
  Json& config = model.files["config.json"];
  config.erase("layer_types");
  config.erase("rope_parameters");
  config["global_attn_every_n_layers"] = 2;
  config["global_rope_theta"] = 80000.0;
  config["local_rope_theta"] = 5000.0;
  config["classifier_pooling"] = "cls";
  const GgufFile file = imported(model);
  EXPECT_EQ(file.integer("modern-bert.attention.sliding_window_pattern").value(), 2);
  EXPECT_EQ(file.number("modern-bert.rope.freq_base").value(), 80'000);
  EXPECT_EQ(file.number("modern-bert.rope.freq_base_swa").value(), 5'000);
  EXPECT_EQ(file.integer("modern-bert.pooling_type").value(), 2);
}

TEST_F(ImportFamily, ModernBertThatLlamaDoesNotCompute) {
  const auto with = [](const char* key, const Json& value) {
    TinyEncoder model("modernbert");
    model.files["config.json"][key] = value;
    return model;
  };
  for (const char* key : {"norm_bias", "attention_bias", "mlp_bias"})
    refuses(with(key, true), std::string(key) + " is true; llama.cpp knows ModernBERT without biases");
  refuses(with("hidden_activation", "gelu_new"), "hidden_activation is \"gelu_new\", expected 'gelu'");
  refuses(with("rope_scaling", Json{{"factor", 2}}), "rope_scaling is set");
  refuses(with("num_attention_heads", 5), "does not divide into 5 heads");
  refuses(with("num_attention_heads", 32), "of an even width");
  refuses(with("local_attention", 0), "'local_attention' is 0");
  refuses(with("layer_types", {"full_attention"}), "layer_types names 1 layers, the model has 4");
  const char *global = "full_attention", *local = "sliding_attention";
  refuses(with("layer_types", {global, global, local, global}), "layer_types does not repeat");
  refuses(with("layer_types", {global, global, "chunked", global}), "layer_types holds \"chunked\"");
  refuses(with("rope_parameters", Json{{global, {{"rope_type", "yarn"}}}}), "rope_type is \"yarn\"");
  refuses(with("rope_parameters", Json{{local, {{"rope_theta", -1}}}}), "sliding_attention's rotary positions is -1");
}

TEST_F(ImportFamily, PostProcessors) {
  TinyEncoder model("roberta");
  Json& processor = model.files["tokenizer.json"]["post_processor"];
  const auto special = [](const char* id) { return Json{{"SpecialToken", {{"id", id}, {"type_id", 0}}}}; };
  const Json sequence = {{"Sequence", {{"id", "A"}, {"type_id", 0}}}};
  processor = {{"type", "TemplateProcessing"}, {"single", Json::array({special("<s>"), sequence, special("</s>")})}};
  EXPECT_TRUE(import(model));
  processor = {{"type", "Sequence"}, {"processors", Json::array({Json{{"type", "ByteLevel"}}, processor})}};
  EXPECT_TRUE(import(model));
  EXPECT_EQ(GgufFile::open(out_).value().integer("tokenizer.ggml.eos_token_id").value(), 2);
  processor = {{"type", "TemplateProcessing"}, {"single", Json::array({sequence, special("</s>")})}};
  refuses(model, "post-processor");
  processor = nullptr;
  refuses(model, "post-processor");
  processor = {{"type", "RobertaProcessing"}, {"cls", {"<a>", 0}}, {"sep", {"</s>", 2}}};
  refuses(model, "the vocabulary has no '<a>'");
}

TEST_F(ImportFamily, RefusesOtherTokenizersWithOneSentence) {
  const std::string supported =
      "; of RoBERTa and ModernBERT models Tailor imports those with a byte-level BPE tokenizer";
  TinyEncoder xlm("roberta");
  xlm.files["config.json"]["model_type"] = "xlm-roberta";
  xlm.files["config.json"]["architectures"] = {"XLMRobertaModel"};
  xlm.files["tokenizer.json"]["model"] = {{"type", "Unigram"}, {"vocab", Json::array({Json{"<s>", 0.0}})}};
  refuses(xlm, "the tokenizer is Unigram (SentencePiece)" + supported);
  expect_error(summarize_hugging_face(dir_.path() / "m"), ErrorCode::kInvalidArgument, "Unigram (SentencePiece)");
  xlm.files["tokenizer.json"]["model"].erase("type");
  refuses(xlm, "the tokenizer is Unigram (SentencePiece)" + supported);
  xlm.files["tokenizer.json"]["model"] = {{"type", "WordPiece"}};
  refuses(xlm, "the tokenizer is WordPiece" + supported);
  xlm.files.erase("tokenizer.json");
  refuses(xlm, "holds neither tokenizer.json nor vocab.json and merges.txt", ErrorCode::kNotFound);
  xlm.texts["sentencepiece.bpe.model"] = "x";
  refuses(xlm, "the tokenizer is SentencePiece" + supported);
}

TEST_F(ImportFamily, RefusesWhatWouldGiveOtherIds) {
  const auto with = [](auto&& change) {
    TinyEncoder model("roberta");
    change(model.files["tokenizer.json"]);
    return model;
  };
  refuses(with([](Json& t) { t["pre_tokenizer"] = {{"type", "Metaspace"}}; }), "the pre-tokenizer is Metaspace");
  refuses(with([](Json& t) { t["pre_tokenizer"]["use_regex"] = false; }), "GPT-2's pattern");
  refuses(with([](Json& t) { t["normalizer"] = {{"type", "Lowercase"}}; }), "normaliser");
  refuses(with([](Json& t) { t["model"]["ignore_merges"] = true; }), "ignore_merges is true");
  refuses(with([](Json& t) { t["model"]["byte_fallback"] = true; }), "byte_fallback is true");
  refuses(with([](Json& t) { t["model"]["end_of_word_suffix"] = "</w>"; }), "end_of_word_suffix is set");
  refuses(with([](Json& t) {
            t["added_tokens"].push_back({{"id", 600}, {"content", "new"}, {"lstrip", true}});
          }),
          "the added token 'new' has lstrip set");
  refuses(with([](Json& t) { t["model"]["vocab"].erase("\xC4\xA0"); }), "does not fit the vocabulary",
          ErrorCode::kCorruptData);
  refuses(with([](Json& t) { t["model"]["vocab"].erase("\xC5\x83"), t["model"]["merges"] = Json::array(); }),
          "the vocabulary lacks a token for the byte 0xAD");
  refuses(with([](Json& t) { t["model"]["vocab"]["far"] = 608; }), "the model has 608 embedding rows");
  refuses(with([](Json& t) { t["model"]["vocab"]["twice"] = 7; }), "do not belong to each other",
          ErrorCode::kCorruptData);
  refuses(with([](Json& t) { t["model"]["merges"].push_back({"a", 3}); }), "wrong type");
  refuses(with([](Json& t) { t["model"]["vocab"] = 3; }), "the model has no vocabulary");
  refuses(with([](Json& t) { t["model"] = 3; }), "there is no 'model'");
}

}  // namespace
}  // namespace tailor
